"""The passes in their order: a float32 graph in, a graph in any precision out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.draft import Draft, draft_from_onnx
from fmmt_deploy.calibration.formats import FORMATS
from fmmt_deploy.calibration.quantised import quantised_graph
from fmmt_deploy.calibration.scales import Calibration
from fmmt_deploy.calibration.typed_graph import typed_graph
from fmmt_deploy.types import GraphName

__all__ = ["draft_in"]


def draft_in(
    graph: GraphName,
    path: Path,
    precision: Precision,
    keep: Sequence[str] = (),
    calibration: Calibration | None = None,
) -> Draft:
    """A graph in another precision, not yet written.

    Args:
        graph: Its name.
        path: Its float32 ONNX file, with its weights beside it.
        precision: Which; `fp32` gives it back with every node decided.
        keep: Patterns of names, as in a shell: of nodes that stay in float32, or, where operands have 8 bits, of
            products that are kept out of these.
        calibration: Where operands have 8 bits.

    Raises:
        PrecisionError: It is not a float32 graph of ours, a node has no rule, or something overflows.
        UsageError: A pattern fits no product.
        ValueError: Calibration is missing, or of another graph.
    """
    draft = draft_from_onnx(graph, path)
    operands = FORMATS[precision].operands
    if operands is None:
        return typed_graph(draft, precision, keep)
    if calibration is None or calibration.graph != graph:
        raise ValueError(f"{graph} in {precision} needs its own calibration")
    draft = quantised_graph(draft, calibration, operands, keep)
    return typed_graph(draft, precision, [_literally(name) for name in calibration.wide])


def _literally(name: str) -> str:
    """A pattern that fits a name and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
