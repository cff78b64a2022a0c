"""What a bundle's receipts say, put in order: which engines were judged, by what, and whether that still holds.

Nothing is computed, opened or hashed here but small JSON files: a report says what was found, `fmmt verify` whether
the files are still those it was found with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Manifest, read_manifest
from fmmt_deploy.bundle.precisions import precisions_from_option, text_from_precisions
from fmmt_deploy.errors import UsageError
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.store import Kept, kept_receipts
from fmmt_deploy.report.documents import Document

__all__ = ["Candidate", "Evidence", "Facts", "Share", "State", "facts_from_bundle"]

State: TypeAlias = Literal["ok", "failed", "stale"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a receipt is worth now.

    Attributes:
        path: Of the receipt, in the bundle.
        receipt: It.
        state: `stale` where what it is about is no longer what the bundle holds.
        why: The reason, for what is not `ok`.
    """

    path: str
    receipt: Receipt
    state: State
    why: str

    @property
    def document(self) -> Document:
        """What the command said."""
        return Document(dict(self.receipt.result))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine with its precisions that was judged at least once.

    Attributes:
        engine: For example `ort`.
        precision: As `--precision` reads it.
        parity: The latest comparison with the reference, stage by stage.
        itself: The latest comparison with itself.
        f1: The latest verdict on its decisions.
        scores: The latest scores without a reference, if there is no verdict.
    """

    engine: str
    precision: str
    parity: Evidence | None
    itself: Evidence | None
    f1: Evidence | None
    scores: Evidence | None

    @property
    def label(self) -> str:
        """`ort, fp16`."""
        return f"{self.engine}, {self.precision}"

    @property
    def latest(self) -> int:
        """The number of its latest receipt."""
        found = (self.parity, self.itself, self.f1, self.scores)
        return max((one.receipt.number for one in found if one is not None), default=0)


@dataclass(frozen=True, slots=True)
class Share:
    """Of which precisions a graph's products are: shares of its FLOPs.

    Attributes:
        graph: Its name.
        precision: What was asked for.
        planned: As the graph says.
        realised: As TensorRT built it, where it did.
        by: Which TensorRT.
    """

    graph: str
    precision: str
    planned: Mapping[str, float]
    realised: Mapping[str, float] | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report says.

    Attributes:
        path: The bundle.
        manifest: Its table of contents.
        kept: Every receipt, damaged ones too.
        candidates: The engines judged, the latest first.
        bench: The latest benchmark.
        verdict: The latest matrix of precisions.
        shares: Precisions of the products of each typed graph and engine.
    """

    path: Path
    manifest: Manifest
    kept: tuple[Kept, ...]
    candidates: tuple[Candidate, ...]
    bench: Evidence | None
    verdict: Evidence | None
    shares: tuple[Share, ...]

    @property
    def name(self) -> str:
        """The bundle's."""
        return self.path.resolve().name

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Those that are whole."""
        return tuple(kept.receipt for kept in self.kept if kept.receipt is not None and not kept.problem)

    @property
    def damaged(self) -> tuple[Kept, ...]:
        """Those that are not."""
        return tuple(kept for kept in self.kept if kept.problem)


def facts_from_bundle(path: Path) -> Facts:
    """Reads a bundle's manifest and receipts.

    Raises:
        BundleError: It is no bundle, or its manifest is not valid.
        EnvironmentProblem: A receipt can't be read.
    """
    manifest, kept = read_manifest(path), kept_receipts(path)
    evidence = [_evidence(one, path, manifest) for one in kept if one.receipt is not None and not one.problem]
    return Facts(
        path=path,
        manifest=manifest,
        kept=kept,
        candidates=_candidates(evidence, manifest),
        bench=_latest(evidence, "bench"),
        verdict=_latest(evidence, "verdict"),
        shares=tuple(_shares(evidence, manifest)),
    )


def _latest(evidence: Sequence[Evidence], command: str) -> Evidence | None:
    return next((one for one in reversed(evidence) if one.receipt.command == command), None)


def _evidence(kept: Kept, path: Path, manifest: Manifest) -> Evidence:
    assert kept.receipt is not None
    receipt = kept.receipt
    changed = [file for file, digest in receipt.subjects.items() if not _still(path, manifest, file, digest)]
    if changed:
        more = " and others" if changed[3:] else ""
        return Evidence(kept.path, receipt, "stale", f"{', '.join(changed[:3])}{more} changed since")
    if receipt.exit_code:
        return Evidence(kept.path, receipt, "failed", f"it ended with {receipt.exit_code}")
    return Evidence(kept.path, receipt, "ok", "")


def _still(path: Path, manifest: Manifest, file: str, digest: str) -> bool:
    """Whether a bundle still has a file as it was judged; of what its manifest does not list, whether it is there."""
    entry = manifest.files.get(file)
    return entry.sha256 == digest if entry is not None else (path / file).exists()


def _candidates(evidence: Sequence[Evidence], manifest: Manifest) -> tuple[Candidate, ...]:
    by_name: dict[tuple[str, str], list[Evidence]] = {}
    for one in evidence:
        if one.receipt.command in ("parity", "eval") and (name := _judged(one, manifest)) is not None:
            by_name.setdefault(name, []).append(one)
    found = [_candidate(*name, judged) for name, judged in by_name.items()]
    return tuple(sorted(found, key=lambda candidate: -candidate.latest))


def _judged(evidence: Evidence, manifest: Manifest) -> tuple[str, str] | None:
    """Engine and precisions that a receipt is about."""
    settings = evidence.receipt.settings
    engine, precision = (settings[name].value if name in settings else None for name in ("engine", "precision"))
    if not isinstance(engine, str) or not isinstance(precision, str):
        return None
    try:
        return engine, text_from_precisions(precisions_from_option(precision, manifest.architecture))
    except UsageError:
        return engine, precision


def _candidate(engine: str, precision: str, judged: Sequence[Evidence]) -> Candidate:
    def latest(command: str, *has: str) -> Evidence | None:
        own = [one for one in judged if one.receipt.command == command]
        return next((one for one in reversed(own) if all(one.document[name] for name in has)), None)

    f1 = latest("eval", "verdict")
    return Candidate(
        engine,
        precision,
        parity=latest("parity", "stages"),
        itself=latest("parity", "checks"),
        f1=f1,
        scores=latest("eval", "modes") if f1 is None else None,
    )


def _shares(evidence: Sequence[Evidence], manifest: Manifest) -> Iterator[Share]:
    """The latest of each graph that is still the bundle's, then of each engine."""
    planned: dict[tuple[str, str], Share] = {}
    built: dict[tuple[str, str, str], Share] = {}
    for one in evidence:
        for graph in one.document["graphs"] if one.receipt.command in ("cast", "calibrate") else ():
            name = graph["graph"].text, graph["precision"].text
            made = one.receipt.outputs.get(graph["file"].text)
            if made is not None and (entry := manifest.files.get(graph["file"].text)) and entry.sha256 == made:
                planned[name] = Share(*name, _by_precision(graph["flops_share"]))
        for engine in one.document["engines"] if one.receipt.command == "build" else ():
            name = engine["graph"].text, engine["precision"].text
            realised = _by_precision(engine["realised"]["flops_share"])
            by = one.document["flavour"].text
            built[(*name, by)] = Share(*name, _by_precision(engine["flops_share"]), realised, by)
    yield from (share for share in (*planned.values(), *built.values()) if share.planned)


def _by_precision(document: Document) -> dict[str, float]:
    return {name: share for name, item in document.members() if (share := item.number) is not None}
