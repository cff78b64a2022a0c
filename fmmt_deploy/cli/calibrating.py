"""What `fmmt calibrate` does with its options: data, settings, writing, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from hashlib import sha256
from math import inf
from pathlib import Path

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import constant_bytes, flops_share, products_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import Finish
from fmmt_deploy.calibration.audit import receipt, receipt_file
from fmmt_deploy.calibration.calibrator import Calibrator
from fmmt_deploy.calibration.cast import cast_bundle, typed_files
from fmmt_deploy.calibration.coverage import Coverage
from fmmt_deploy.calibration.dataset import CalibrationData, calibration_data
from fmmt_deploy.calibration.examples import check_sqnr, examples_from_cases, sqnr_of_engine
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.calibration.planning import Planned
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.cli.output import Output, Table, readable_bytes
from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.parity.run import cases_from_dataset
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.types import GraphName

__all__ = ["Source", "document", "made_files", "parts", "write_planned"]

Sqnr = Mapping[GraphName, Mapping[str, float]]

_RECEIPTS = "receipts/calibration-*.json in the bundle"

_SHOWN = 3
"""So many tensors a graph are shown to people; all are in the JSON."""


class Source:
    """Checked calibration data, and a calibrator of them.

    Args:
        session: The bundle.
        shown: Where progress goes.
        settings: How to calibrate.
        data: What is calibrated on.
        beside: See `Calibrator`.
    """

    def __init__(
        self,
        session: Session,
        shown: Output,
        settings: CalibrationSettings,
        data: CalibrationData,
        beside: Path | None = None,
    ) -> None:
        self._beside = beside
        self._session, self._shown, self.settings, self.data = session, shown, settings, data
        self._calibrator: Calibrator | None = None
        self._pipeline = session.pipeline(Engines("emulated", {}))  # it prepares inputs, and runs nothing

    @classmethod
    def opened(
        cls,
        session: Session,
        shown: Output,
        settings: CalibrationSettings,
        path: Path,
        split: str,
        *,
        faces_dir: Path | None,
        test_data: Path | None,
        leave_out_test: bool,
        allow_small: bool,
        beside: Path | None = None,
    ) -> Source:
        """Reads, chooses and checks the data; see `calibration_data`."""
        shown.status("reading and checking what to calibrate on")
        tokenizer = session.pipeline(Engines("emulated", {})).tokenizer
        data = calibration_data(
            path,
            split,
            session.architecture,
            tokenizer,
            faces_dir=faces_dir,
            count=settings.dialogues,
            seed=settings.seed,
            test_data=test_data,
            allow_small=allow_small,
            leave_out_test=leave_out_test,
        )
        for warning in data.coverage.warnings:
            shown.status(f"warning: {warning}")
        return cls(session, shown, settings, data, beside)

    @property
    def digest(self) -> str:
        """What identifies the data and their order: of what its utterances hold, and their ids."""
        return sha256("\n".join([self.data.coverage.digests, *self.data.dataset.order]).encode()).hexdigest()

    def cases(self, first: int = 0) -> Iterator[CaseInputs]:
        """The data's batches but so many, with a progress bar."""
        dataset = self.data.dataset
        with self._shown.progress("calibrating", len(dataset.order)) as advance:
            for case in cases_from_dataset(self._pipeline, dataset, no_noise, first):
                yield case.by_graph()
                advance(len(case.last["vision_mask"]))

    def calibrator(self, graphs: Sequence[GraphName]) -> Calibrator:
        """Of some graphs, on these data; the one there is already, if it has them."""
        session = self._session
        if self._calibrator is None or not set(graphs) <= set(self._calibrator.graphs):
            self._calibrator = Calibrator(
                session.bundle,
                graphs,
                self.cases,
                self.digest,
                self.settings,
                session.threads,
                beside=self._beside,
                status=self._shown.status,
            )
        return self._calibrator


def write_planned(
    session: Session,
    source: Source,
    planned: Sequence[Planned],
    sqnr: MutableMapping[GraphName, dict[str, float]],
    *,
    out: Path | None,
    force: bool,
    least_db: float,
    finish: Finish,
    status: Callable[[str], None],
) -> Bundle:
    """Writes graphs, each held against float32 on some of the data; with their receipts.

    Args:
        session: The bundle.
        source: The data.
        planned: The graphs.
        sqnr: Gets what each graph's own answers have, in dB.
        out: See `cast_bundle`, as for the others.
        force: Whether to replace a bundle there.
        least_db: A graph with less is refused.
        finish: See `BundleWriter.commit`.
        status: Told what is going on.

    Raises:
        ParityError: A graph answers with too much noise.
    """
    status("float32 answers on some of the data")
    graphs = [each.draft.graph for each in planned]
    examples = examples_from_cases(session.bundle, graphs, source.cases(), session.threads)

    def accept(graph: GraphName, path: Path, precision: Precision) -> None:
        engine = engine_from_onnx(graph, path, session.threads)
        sqnr[graph] = sqnr_of_engine(engine, examples[graph])
        engine.close()
        check_sqnr(graph, precision, sqnr[graph], least_db)

    def receipts() -> dict[str, str]:
        return {
            receipt_file(p.draft.graph, p.draft.precision): receipt(
                p.audit, source.data.coverage, source.settings, sqnr[p.draft.graph]
            )
            for p in planned
            if p.audit is not None
        }

    drafts = [each.draft for each in planned]
    return cast_bundle(
        session.bundle, drafts, accept=accept, out=out, force=force, receipts=receipts, finish=finish, status=status
    )


def made_files(planned: Iterable[Planned]) -> list[str]:
    """Everything that `write_planned` writes, by path in the bundle."""
    found: list[str] = []
    for graph, precision, audit in ((p.draft.graph, p.draft.precision, p.audit) for p in planned):
        found += typed_files(graph, precision)
        found += [] if audit is None else [receipt_file(graph, precision)]
    return found


def document(planned: Iterable[Planned], source: Source, sqnr: Sqnr) -> dict[str, object]:
    """What was done, for programs."""
    graphs = [
        {
            "graph": each.draft.graph,
            "precision": each.draft.precision,
            "file": typed_files(each.draft.graph, each.draft.precision)[0],
            "flops_share": flops_share(products_of(each.draft.model)),
            "weight_bytes": constant_bytes(each.draft.model),
            "sqnr_db": sqnr.get(each.draft.graph),
            "audit": each.audit,
        }
        for each in planned
    ]
    return {"settings": source.settings, "coverage": source.data.coverage, "graphs": graphs}


def parts(planned: Sequence[Planned], source: Source, sqnr: Sqnr, title: str) -> list[Table | str]:
    """What was done, for people."""
    found: list[Table | str] = [_coverage(source.data.coverage), _summary(planned, sqnr, title), _tensors(planned)]
    warnings = [
        *source.data.coverage.warnings,
        *(text for each in planned for text in (each.audit.warnings if each.audit else ())),
    ]
    legend = (
        "own dB: of the graph's own answers on some of the data, against float32. Wide: float32 around the product. "
        "Seeds ±:\nhow far other dialogues would put the threshold. "
        f"All of it: {_RECEIPTS}. Next: fmmt verdict, on data not calibrated on."
    )
    return [*found, legend, "\n".join(f"warning: {text}" for text in warnings)] if warnings else [*found, legend]


def _coverage(coverage: Coverage) -> Table:
    emotions = ", ".join(f"{name} {count}" for name, count in coverage.emotions.items() if count)
    tokens = coverage.dialogue_tokens
    rows: list[tuple[object, ...]] = [
        ("dialogues", coverage.dialogues),
        ("utterances", coverage.utterances),
        ("faces", coverage.faces),
        ("emotions", emotions or "no labels"),
    ]
    if tokens is not None:
        rows.append(("tokens a dialogue", f"{tokens.lowest} to {tokens.highest}, half of them at most {tokens.p50}"))
    tests = ", ".join(coverage.reading.compared_with)
    rows.append(("test split", f"none of it is in that of {tests}" if tests else "none was found"))
    return Table(f"calibrated on {coverage.source} ({coverage.reading.split})", (), rows)


def _summary(planned: Iterable[Planned], sqnr: Sqnr, title: str) -> Table:
    rows = []
    for each in planned:
        draft, audit = each.draft, each.audit
        share = flops_share(products_of(draft.model)).get(draft.precision, 0)
        own = ", ".join(f"{db:.1f}" for db in sqnr.get(draft.graph, {}).values()) or "–"
        counts: tuple[object, ...] = ("–",) * 4
        if audit is not None:
            smoothed = sum(tensor.alpha is not None for tensor in audit.tensors)
            counts = (len(audit.tensors), smoothed, len(audit.kept_out), len(audit.wide))
        weights = readable_bytes(constant_bytes(draft.model))
        rows.append((draft.graph, draft.precision, f"{share:.2%}", weights, *counts, own))
    heads = ("graph", "precision", "of its FLOPs", "weights", "tensors", "smoothed", "kept out", "wide", "own dB")
    return Table(title, heads, rows)


def _tensors(planned: Iterable[Planned]) -> Table:
    rows = [
        (
            audit.graph,
            tensor.tensor,
            tensor.method,
            f"{tensor.largest:.4g}",
            f"{tensor.threshold:.4g}",
            f"{tensor.saturated:.3%}",
            "–" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}",
            "–" if tensor.seeds is None else f"{tensor.seeds:.1%}",
            tensor.verdict,
        )
        for audit in (each.audit for each in planned)
        if audit is not None
        for tensor in sorted(audit.tensors, key=lambda tensor: tensor.sqnr_db or inf)[:_SHOWN]
    ]
    heads = ("graph", "tensor", "method", "largest", "threshold", "saturated", "dB", "seeds ±", "verdict")
    return Table("The tensors that 8 bits suit least", heads, rows)
