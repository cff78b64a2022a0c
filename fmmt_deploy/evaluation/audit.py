"""The discontinuity audit: a small error does much where the model decides hard, at the face gate and at the argmax.

For each of these decisions: how near its edge the reference is, how far the engine is off there, which crossed, and
what that did to F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fmmt_deploy.errors import DataError
from fmmt_deploy.evaluation.edges import Edge, edge_from_margins
from fmmt_deploy.evaluation.evaluation import checked_labels, checked_logits
from fmmt_deploy.evaluation.gate import confidences, exact_threshold, passed_faces
from fmmt_deploy.evaluation.scores import DoubleArray, confusion_matrix, leads, weighted_f1
from fmmt_deploy.pipeline.noise import Noise, no_noise
from fmmt_deploy.pipeline.run import Prediction
from fmmt_deploy.types import BoolArray, FloatArray, IntArray

__all__ = ["Audit", "F1Parts", "UsedFaces", "audit"]


@dataclass(frozen=True, slots=True)
class F1Parts:
    """Where a difference of weighted F1 (engine minus reference, 0 to 1) comes from; the two parts add up to it.

    F1 is no sum over utterances, so each part is the mean of what it changes when it comes first and when it comes
    after the other (Shapley's share).

    Attributes:
        difference: The whole.
        through_the_gate: From utterances that were answered with other faces than the reference's.
        elsewhere: From all others.
        gate_utterances: How many utterances were answered with other faces.
    """

    difference: float
    through_the_gate: float
    elsewhere: float
    gate_utterances: int


@dataclass(frozen=True, slots=True)
class UsedFaces:
    """Which of an utterance's faces each side used, from 0."""

    reference: tuple[int, ...]
    engine: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """The hard decisions of a run against the reference's.

    Attributes:
        gate: Of each face: is Σp² above the threshold? None where there is no face, or the model has no gate.
        decision: Of each utterance: which logit is the largest?
        f1: What that did to F1.
        faces: By utterance, for those that were decided otherwise or answered with other faces.
    """

    gate: Edge | None
    decision: Edge
    f1: F1Parts
    faces: Mapping[str, UsedFaces]

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return asdict(self)


def audit(
    reference: Sequence[Prediction],
    answers: Sequence[Prediction],
    labels: Sequence[int | None],
    *,
    vision_length: int,
    tau: float,
    threshold: float,
    noise: Noise = no_noise,
) -> Audit:
    """Audits the hard decisions of a run.

    Args:
        reference: The reference's answers (U).
        answers: The engine's, to the same utterances in the same order.
        labels: (U,), indices into `EMOTIONS`.
        vision_length: V, as the noise was drawn.
        tau: Of the gate's softmax.
        threshold: Of the gate.
        noise: What both sides were run with.

    Raises:
        DataError: There is no utterance, one without a label, or the two runs are of other utterances or faces.
        NotEquivalentError: Logits that are not finite.
    """
    utterances = _common(reference, answers)
    truth = checked_labels(utterances, labels)
    sides = [np.stack([a.logits for a in run]) for run in (reference, answers)]
    for logits, name in zip(sides, ("reference's logits", "logits"), strict=True):
        checked_logits(utterances, logits, name)
    changed = np.array([a.kept_faces != b.kept_faces for a, b in zip(reference, answers, strict=True)])
    return Audit(
        _gate(reference, answers, vision_length, tau, exact_threshold(threshold), noise),
        _decision(utterances, *sides),
        _parts(truth, sides[0].argmax(axis=1), sides[1].argmax(axis=1), changed),
        {
            a.utterance: UsedFaces(a.kept_faces, b.kept_faces)
            for a, b in zip(reference, answers, strict=True)
            if a.kept_faces != b.kept_faces or a.logits.argmax() != b.logits.argmax()
        },
    )


def _common(reference: Sequence[Prediction], answers: Sequence[Prediction]) -> list[str]:
    ids = [answer.utterance for answer in reference]
    if ids != [answer.utterance for answer in answers]:
        raise DataError("An audit needs two runs over the same utterances in the same order, found others.")
    for a, b in zip(reference, answers, strict=True):
        if len(a.face_logits) != len(b.face_logits):
            found = f"{len(a.face_logits)} and {len(b.face_logits)}"
            raise DataError(f"Both runs must have read the same faces of {a.utterance}, found {found}.")
    return ids


def _gate(
    reference: Sequence[Prediction],
    answers: Sequence[Prediction],
    vision_length: int,
    tau: float,
    threshold: float,
    noise: Noise,
) -> Edge | None:
    places: list[tuple[str, int | None]] = []
    margins: tuple[list[DoubleArray], list[DoubleArray]] = ([], [])
    passed: tuple[list[BoolArray], list[BoolArray]] = ([], [])
    for pair in zip(reference, answers, strict=True):
        faces = len(pair[0].face_logits)
        if not faces:
            continue
        draws = noise(pair[0].utterance, faces, vision_length)[:faces]
        places += [(pair[0].utterance, face) for face in range(faces)]
        for side, answer in enumerate(pair):
            margins[side].append(confidences(answer.face_logits, tau, draws) - threshold)
            passed[side].append(passed_faces(margins[side][-1], answer.kept_faces))
    if not places:
        return None
    first, second = (np.concatenate(side) for side in passed)
    exact = [np.concatenate(side) for side in margins]
    return edge_from_margins("gate", places, exact[0], exact[1], first, first != second)


def _decision(utterances: Sequence[str], reference: FloatArray, logits: FloatArray) -> Edge:
    """Margins are by how much the reference's decision leads: on both sides, so that an engine's can be negative."""
    chosen = reference.argmax(axis=1)
    places: list[tuple[str, int | None]] = [(utterance, None) for utterance in utterances]
    sides = np.ones(len(chosen), np.bool_)
    crossed = chosen != logits.argmax(axis=1)
    return edge_from_margins("decision", places, leads(reference, chosen), leads(logits, chosen), sides, crossed)


def _parts(labels: IntArray, reference: IntArray, decisions: IntArray, gate: BoolArray) -> F1Parts:
    def f1(chosen: IntArray) -> float:
        return float(weighted_f1(confusion_matrix(labels, chosen)))

    neither, both = f1(reference), f1(decisions)
    only_gate, only_rest = f1(np.where(gate, decisions, reference)), f1(np.where(gate, reference, decisions))
    through = ((only_gate - neither) + (both - only_rest)) / 2
    rest = ((only_rest - neither) + (both - only_gate)) / 2
    return F1Parts(both - neither, through, rest, int(gate.sum()))
