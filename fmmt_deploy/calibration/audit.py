"""What calibration did to each tensor, with the figures to judge it by; kept in the bundle's receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.calibrator import Calibrated
from fmmt_deploy.calibration.choosing import FLOAT16_LARGEST
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.coverage import Coverage
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.saturation import saturation_of
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.calibration.sites import kept_out, linears_of
from fmmt_deploy.calibration.spread import spread_of
from fmmt_deploy.calibration.thresholds import Method
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.types import GraphName

__all__ = ["GraphAudit", "TensorAudit", "audit_of", "check_float16", "receipt", "receipt_file"]

_SCHEMA = "fmmt.calibration/1"


@dataclass(frozen=True, slots=True)
class TensorAudit:
    """One tensor that products of 8 bits read.

    Attributes:
        tensor: Its name in the float32 graph.
        products: Who reads it.
        method: How its threshold was chosen.
        threshold: Where it saturates; of the smoothed tensor, where it is smoothed.
        largest: The largest magnitude seen, likewise.
        saturated: Share of its numbers beyond the threshold.
        sqnr_db: What rounding and saturation leave of the tensor itself; None if that is all of it.
        verdict: `ok`, or what is wrong with the threshold; see `saturation`.
        halves: The largest relative difference between thresholds of two halves of the data; None of too few batches.
        seeds: The relative standard error of the threshold over other choices of dialogues; likewise.
        stable: See `spread`.
        alpha: How it is smoothed; None if it is not.
        gain_db: What smoothing gains in the products' SQNR.
    """

    tensor: str
    products: tuple[str, ...]
    method: Method
    threshold: float
    largest: float
    saturated: float
    sqnr_db: float | None
    verdict: str
    halves: float | None
    seeds: float | None
    stable: str
    alpha: float | None
    gain_db: float | None


@dataclass(frozen=True, slots=True)
class GraphAudit:
    """One graph with 8-bit products.

    Attributes:
        graph: Which.
        precision: Which.
        tensors: In the graph's order.
        kept_out: Products of weights that have no 8 bits, and why.
        wide: Products with float32 around them, because float16 could overflow.
    """

    graph: GraphName
    precision: Precision
    tensors: tuple[TensorAudit, ...]
    kept_out: Mapping[str, str]
    wide: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be looked at, in words."""
        found = []
        for what, names in (
            ("saturating", [t.tensor for t in self.tensors if t.verdict == "SATURATES"]),
            ("with a threshold that is off", [t.tensor for t in self.tensors if t.verdict in ("OFF", "TOO WIDE")]),
            ("unstable, other dialogues would give quite another threshold", self._of("UNSTABLE")),
            ("seen in too few batches to tell how stable", self._of("too few cases")),
        ):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                found.append(f"{self.graph} {self.precision}: {what}: {names[0]}{more}")
        return tuple(found)

    def _of(self, stable: str) -> list[str]:
        return [tensor.tensor for tensor in self.tensors if tensor.stable == stable]


def audit_of(
    calibrated: Calibrated,
    precision: Precision,
    settings: CalibrationSettings,
    original: onnx.ModelProto,
    keep: Sequence[str] = (),
) -> GraphAudit:
    """Looks at a calibration.

    Args:
        calibrated: It, and what it was made from.
        precision: What the graph becomes.
        settings: How it was calibrated.
        original: The float32 graph.
        keep: Patterns of products that were kept out.
    """
    out = {node.name: why for node in linears_of(GraphView(original)) if (why := kept_out(node, keep))}
    readers: dict[str, list[str]] = {}
    for site in calibrated.statistics.sites:
        if site.node not in out:
            readers.setdefault(site.input, []).append(site.node)
    tensors = tuple(_tensor(calibrated, name, tuple(nodes), settings) for name, nodes in readers.items())
    wide = tuple(sorted(calibrated.calibration.wide - out.keys())) if precision == "int8" else ()
    return GraphAudit(calibrated.calibration.graph, precision, tensors, out, wide)


def _tensor(calibrated: Calibrated, name: str, products: tuple[str, ...], settings: CalibrationSettings) -> TensorAudit:
    scale, choice = calibrated.calibration.inputs[name], calibrated.choices.get(name)
    smoothed = calibrated.smoothed if scale.smoothing is not None else None
    seen = (smoothed or calibrated.statistics).inputs[name]
    method = settings.methods[0] if choice is None else choice.chosen.method
    held = saturation_of(name, seen.histogram, scale.threshold, calibrated.operands, method, settings.percentile)
    spread = spread_of(seen, method, calibrated.operands, settings.percentile)
    return TensorAudit(
        tensor=name,
        products=products,
        method=method,
        threshold=scale.threshold,
        largest=held.largest,
        saturated=held.share,
        sqnr_db=_finite(held.sqnr_db),
        verdict=held.verdict,
        halves=spread.halves,
        seeds=spread.seeds,
        stable=spread.verdict,
        alpha=None if choice is None else choice.chosen.alpha,
        gain_db=0.0 if choice is None else _finite(choice.gain_db),
    )


def check_float16(statistics: GraphStatistics, draft: Draft) -> None:
    """Refuses a graph of whose tensors one would overflow float16, where float16 is around.

    Raises:
        PrecisionError: One would, with its name.
    """
    if draft.around != "fp16":
        return
    for name, largest in statistics.largest.items():
        if largest > FLOAT16_LARGEST and "fp16" in (draft.held or {}).get(name, ()):
            raise PrecisionError(
                f"{draft.graph} in {draft.precision} overflows: {name} reaches {largest:.6g}.",
                why="Seen in the float32 graph on the calibration data; float16 ends at 65504.",
                fix="Use int8-fp32, or leave the graph in float32 or bf16.",
                tensor=name,
            )


def receipt_file(graph: GraphName, precision: Precision) -> str:
    """Where a bundle keeps what `receipt` gives."""
    return f"receipts/calibration-{graph}-{precision}.json"


def receipt(audit: GraphAudit, coverage: Coverage, settings: CalibrationSettings, sqnr: Mapping[str, float]) -> str:
    """What a bundle keeps of a calibration, as JSON.

    Args:
        audit: Of the graph.
        coverage: Of the data.
        settings: How it was calibrated.
        sqnr: Of the graph's own outputs on some of the data, in dB.
    """
    tools = {name: version(name) for name in ("fmmt-deploy", "onnx", "torch")}
    document = {
        "schema": _SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": tools,
        "settings": asdict(settings),
        "coverage": asdict(coverage),
        "sqnr_db": {name: _finite(db) for name, db in sqnr.items()},
        "audit": asdict(audit),
        "warnings": [*coverage.warnings, *audit.warnings],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _finite(number: float) -> float | None:
    """JSON knows no infinity."""
    return number if isfinite(number) else None
