"""Holds engines of single graphs, or of several, against the float32 reference on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import HOST_FACE_BATCH, Array, Engine, Engines
from fmmt_deploy.errors import DataError, FmmtError
from fmmt_deploy.evaluation.gate import confidences
from fmmt_deploy.parity.run import Case
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.rounding import TIE_MARGIN
from fmmt_deploy.selection.answering import Answers, Inputs, TextEncoder, asking, face_logits, last_inputs
from fmmt_deploy.selection.cases import DataCases
from fmmt_deploy.selection.judgement import Judgement, KeptFaces, NoiseSum, f1_change, kept_faces
from fmmt_deploy.types import DataSet, GraphName

__all__ = ["Judge", "judge_from_bundle"]

RESAMPLES = 2000
_FIRST: tuple[GraphName, GraphName] = ("plm", "swin")


@dataclass(frozen=True, slots=True)
class _Right:
    """What the reference computed for a case; states of padding are kept too, for that is what `fusion` takes."""

    token_states: Array | None
    face_logits: Array | None
    logits: Array
    kept: Array | None


@dataclass(slots=True)
class _Found:
    """What the judged engines answer."""

    graphs: tuple[GraphName, ...]
    logits: list[Array] = field(default_factory=list)
    face_logits: list[Array] = field(default_factory=list)
    outputs: dict[GraphName, NoiseSum] = field(default_factory=dict)
    kept_changed: int = 0
    not_finite: str = ""
    _last_states: Array | None = None

    def add_states(self, reference: Array | None, states: Array | None, mask: Array) -> None:
        """Token states of a case (D, T, H): of real tokens, and once where cases share them."""
        if reference is None or states is None or states is self._last_states:
            return
        self._last_states = states
        real = mask.astype(bool)
        self.add("plm", reference[real], states[real])

    def add(self, graph: GraphName, reference: Array | None, actual: Array | None) -> None:
        """Outputs of one graph, (rows, …)."""
        if reference is None or actual is None:
            return
        self.outputs.setdefault(graph, NoiseSum()).add(reference, actual)
        broken = int((~np.isfinite(actual)).any(axis=1).sum())
        if broken:
            self.note(f"the answers of {graph}", broken, len(actual), "rows of a batch")

    def note(self, what: str, broken: int, total: int, unit: str) -> None:
        """Keeps the first that is found: what comes after it follows from it."""
        self.not_finite = self.not_finite or f"{what} are NaN or infinite for {broken} of {total} {unit}"


class Judge:
    """Holds engines against the float32 reference; what the reference computes is computed once and kept.

    Kept are the reference's outputs: 4·D·T·H bytes of token states (some 120 MB for all of MELD's test set), and little
    else. The inputs are taken from `cases` again for every judgement.

    Args:
        architecture: The model's.
        cases: The inputs, without noise; gone through once here and once for every judgement, so not a generator.
            Cases that follow each other and share the arrays of their text are encoded together, once.
        reference: What is right; stays open as long as this is used, for it also computes what comes after a judged
            graph.
        utterances: `(U,)` ids, in the order of the cases' rows.
        dialogues: `(U,)`, each utterance's dialogue.
        labels: `(U,)`, indices into `EMOTIONS`, or None where unknown: without all of them there is no F1.
        tau: Of the faces' softmax.
        threshold: Of the gate.
        advance: Told of so many utterances that the reference has answered.

    Raises:
        DataError: There is no utterance.
        FmmtError: The reference answers NaN, or another number of utterances than is named.
    """

    def __init__(
        self,
        architecture: Architecture,
        cases: Iterable[Case],
        reference: Engines,
        utterances: Sequence[str],
        dialogues: Sequence[str],
        labels: Sequence[int | None],
        *,
        tau: float = 1.0,
        threshold: float = 0.2,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        if not utterances:
            raise DataError("Judging needs at least one utterance, found none.", fix="Choose another split.")
        self.utterances, self.dialogues, self.labels = tuple(utterances), tuple(dialogues), tuple(labels)
        self._cases, self._reference, self._tau, self._threshold = cases, reference, tau, threshold
        self._last: GraphName = "unimodal" if architecture.unimodal is not None else "fusion"
        self._right: list[_Right] = []
        encode = None if self._last == "unimodal" else TextEncoder(reference["plm"])
        for case in cases:
            states = None if encode is None or case.plm is None else encode(case.plm)
            faces = None if case.swin is None else face_logits(reference["swin"], case.swin, reference.face_batch)
            outputs = reference[self._last].run(last_inputs(case, states, faces))
            self._right.append(_Right(states, faces, outputs["logits"], outputs.get("kept")))
            advance(len(outputs["logits"]))
        self._logits = np.concatenate([right.logits for right in self._right])
        self._check(len(self.utterances), len(self.dialogues), len(self.labels))

    @property
    def labelled(self) -> bool:
        """Whether all labels are known, so that there is an F1."""
        return None not in self.labels

    def answers(
        self,
        graph: GraphName,
        engine: Engine,
        face_batch: int | None = HOST_FACE_BATCH,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Answers:
        """What an engine of `swin` or `plm` answers, to be judged more than once: alone, and together with others.

        Args:
            graph: Which of the two.
            engine: Its engine.
            face_batch: As for `judge`.
            advance: As for `judge`.

        Raises:
            FmmtError: The engine fails.
        """
        ask, found = asking(graph, engine, face_batch), []
        for number, case in enumerate(self._cases):
            found.append(ask(number, case))
            advance(len(case.last["vision_mask"]))
        return Answers(graph, tuple(found))

    def judge(
        self,
        engines: Mapping[GraphName, Engine | Answers],
        face_batch: int | None = HOST_FACE_BATCH,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Judgement:
        """Judges engines of some graphs; graphs that are not given answer as the reference did.

        Args:
            engines: One a graph, or what it answered (see `answers`).
            face_batch: Faces that go through `swin` together; None leaves it to the engine.
            advance: Told of so many utterances that are answered.

        Raises:
            FmmtError: An engine fails. Answers that are not finite are no error, but are told in the judgement.
        """
        found = _Found(tuple(engines))
        texts, faces = (asking(g, engines[g], face_batch) if g in engines else None for g in _FIRST)
        last = engines.get(self._last) or self._reference[self._last]
        assert not isinstance(last, Answers)
        for number, (case, right) in enumerate(zip(self._cases, self._right, strict=True)):
            states, rows = right.token_states, right.face_logits
            if texts is not None and case.plm is not None:
                states = texts(number, case)
                found.add_states(right.token_states, states, case.plm["attention_mask"])
            if faces is not None and case.swin is not None:
                rows = faces(number, case)
                found.add("swin", right.face_logits, rows)
            outputs = last.run(last_inputs(case, states, rows))
            found.logits.append(outputs["logits"])
            if rows is not None:
                found.face_logits.append(rows)
            if right.kept is not None:
                found.kept_changed += int((outputs["kept"] != right.kept).sum())
            advance(len(outputs["logits"]))
        return self._judgement(found)

    def inputs_of(self, graph: GraphName, most: int) -> list[Inputs]:
        """What a graph is asked, for up to `most` cases, with the reference's outputs where it takes others'."""
        found: list[Inputs] = []
        for case, right in zip(self._cases, self._right, strict=True):
            if len(found) == most:
                break
            if graph == self._last:
                found.append(last_inputs(case, right.token_states, right.face_logits))
            elif graph == "swin" and case.swin is not None:
                found.append(dict(case.swin))
            elif graph == "plm" and case.plm is not None:
                found.append(case.plm)
        return found

    def _judgement(self, found: _Found) -> Judgement:
        logits = np.concatenate(found.logits)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            found.note("logits", int((~finite).sum()), len(finite), "utterances")
        noise = NoiseSum()
        noise.add(self._logits, logits)
        reference, decisions = self._logits.argmax(axis=1), logits.argmax(axis=1)
        rows = np.arange(len(logits))
        margins = self._logits[rows, reference].astype(np.float64) - self._logits[rows, decisions]
        different = (reference != decisions) | ~finite
        tied = different & finite & (margins <= TIE_MARGIN)
        f1 = None
        if self.labelled and not found.not_finite:
            _, numbers = np.unique(self.dialogues, return_inverse=True)
            labels = np.array(self.labels, np.int64)
            f1 = f1_change(labels, reference, decisions, tied, numbers, RESAMPLES)
        return Judgement(
            graphs=found.graphs,
            utterances=len(logits),
            changed=tuple(self.utterances[i] for i in np.flatnonzero(different & ~tied)),
            ties=int(tied.sum()),
            sqnr_db=noise.db,
            outputs_sqnr_db={graph: total.db for graph, total in found.outputs.items()},
            f1=f1,
            kept=self._kept(found),
            not_finite=found.not_finite,
        )

    def _kept(self, found: _Found) -> KeptFaces | None:
        right = [right.face_logits for right in self._right if right.face_logits is not None]
        if not right or found.not_finite:
            return None
        reference, actual = (confidences(np.concatenate(side), self._tau) for side in (right, found.face_logits))
        return kept_faces(reference, actual, found.kept_changed, self._threshold)

    def _check(self, *named: int) -> None:
        if not np.isfinite(self._logits).all():
            raise FmmtError(
                "The reference answers NaN or infinity, so nothing can be held against it.",
                fix="Run `fmmt parity` on this bundle.",
                tensor="logits",
            )
        if set(named) != {len(self._logits)}:
            raise FmmtError(
                f"Ids, dialogues and labels must be as many as the utterances: {len(self._logits)}, found {named}."
            )


def judge_from_bundle(
    bundle: Bundle,
    dataset: DataSet,
    reference: Engines,
    *,
    batch_size: int = 8,
    threads: int = 2,
    advance: Callable[[int], None] = lambda _: None,
) -> Judge:
    """A judge of a bundle's graphs on a data set; the reference answers all of it here.

    Args:
        bundle: The model.
        dataset: The utterances.
        reference: `open_engines(bundle, "torch")`; stays open as long as the judge is used.
        batch_size: Utterances that are fused together.
        threads: Threads that read faces.
        advance: Told of so many utterances that are answered.

    Raises:
        DataError: The data lack what the model needs, or there is no utterance.
    """
    pipeline = Pipeline(bundle, reference, batch_size=batch_size, threads=threads)
    cases = DataCases(pipeline, dataset)
    return Judge(
        bundle.manifest.architecture,
        cases,
        reference,
        cases.utterances,
        cases.dialogues,
        cases.labels,
        tau=bundle.manifest.tau,
        threshold=bundle.manifest.threshold,
        advance=advance,
    )
