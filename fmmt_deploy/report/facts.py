"""What a bundle's receipts say, put in order: which engines were judged, by what, and whether that still holds.

Nothing is computed, opened or hashed here but small JSON files: a report says what was found, `fmmt verify` whether
the files are still those it was found with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Manifest
from fmmt_deploy.bundle.precisions import precisions_from_option, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import UsageError
from fmmt_deploy.receipts.chain import Chain, chain_of
from fmmt_deploy.receipts.kept import Kept, kept_receipts
from fmmt_deploy.receipts.lanes import lanes_of_receipt
from fmmt_deploy.receipts.making_steps import manifest_problem
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.staleness import why_stale
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
    """An engine with its precisions that was judged at least once; of each judgement the latest on each data.

    Attributes:
        engine: For example `ort`.
        precision: As `--precision` reads it.
        parity: Comparisons with the reference, stage by stage.
        itself: The latest comparison with itself.
        f1: Verdicts on its decisions.
        tries: Negative ones before them on the same, at another margin or with other seeds.
        scores: Scores without a reference, on data that there is no verdict on.
    """

    engine: str
    precision: str
    parity: tuple[Evidence, ...]
    itself: Evidence | None
    f1: tuple[Evidence, ...]
    tries: tuple[Evidence, ...]
    scores: tuple[Evidence, ...]

    @property
    def label(self) -> str:
        """`ort, fp16`."""
        return f"{self.engine}, {self.precision}"

    @property
    def latest(self) -> int:
        """The number of its latest receipt."""
        found = (*self.parity, *self.f1, *self.scores, *((self.itself,) if self.itself else ()))
        return max((one.receipt.number for one in found), default=0)


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
        chain: From checkpoint to benchmark; None where a receipt is damaged, so that there is none.
        kept: Every receipt, damaged ones too.
        candidates: The engines judged, the latest first.
        bench: The latest benchmark.
        verdict: The latest matrix of precisions.
        shares: Precisions of the products of each typed graph and engine.
    """

    path: Path
    manifest: Manifest
    chain: Chain | None
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
        BundleError: It is no bundle, or not all of it is there.
        EnvironmentProblem: It can't be read.
    """
    bundle, kept = Bundle.open(path, verify=False), kept_receipts(path)
    chain = None if any(one.problem for one in kept) else chain_of(bundle)
    whole = {one.path: one.receipt for one in kept if one.receipt and not one.problem}
    manifest = manifest_problem(bundle, tuple(whole.values()))
    evidence = [_evidence(path, receipt, bundle, manifest) for path, receipt in whole.items()]
    return Facts(
        path=path,
        manifest=bundle.manifest,
        chain=chain,
        kept=kept,
        candidates=_candidates(evidence, bundle.manifest),
        bench=_latest(evidence, "bench"),
        verdict=_latest(evidence, "verdict"),
        shares=tuple(_shares(evidence, bundle.manifest)),
    )


def _latest(evidence: Sequence[Evidence], command: str) -> Evidence | None:
    return next((one for one in reversed(evidence) if one.receipt.command == command), None)


def _evidence(path: str, receipt: Receipt, bundle: Bundle, manifest: str) -> Evidence:
    if why := why_stale(bundle, receipt, manifest, lanes_of_receipt(bundle, receipt)):
        return Evidence(path, receipt, "stale", why)
    if receipt.exit_code:
        return Evidence(path, receipt, "failed", f"it ended with {receipt.exit_code}")
    return Evidence(path, receipt, "ok", "")


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
    verdicts = _by_data(one for one in judged if one.receipt.command == "eval" and one.document["verdict"])
    scores = _by_data(one for one in judged if one.document["modes"] and not one.document["verdict"])
    itself = [one for one in judged if one.document["checks"]]
    return Candidate(
        engine,
        precision,
        parity=tuple(_by_data(one for one in judged if one.document["stages"]).values()),
        itself=itself[-1] if itself else None,
        f1=tuple(verdicts.values()),
        tries=tuple(
            one for one in judged if one.document["verdict"] and one.state == "failed" and one not in verdicts.values()
        ),
        scores=tuple(one for data, one in scores.items() if data[:-1] not in {judged_[:-1] for judged_ in verdicts}),
    )


def _by_data(judged: Iterable[Evidence]) -> dict[tuple[object, ...], Evidence]:
    """The latest on each data; a part of them, other noise or another reference is another question."""
    found: dict[tuple[object, ...], Evidence] = {}
    for one in judged:
        names = ("data", "split", "limit", "noise", "reference")
        data, split, *how, reference = (str(s.value) if (s := one.receipt.settings.get(n)) else "None" for n in names)
        against = "torch" if reference in ("None", "recorded") else reference
        found[data, split if data != "None" else "None", *how, against] = one  # a self-test has no split
    return found


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
