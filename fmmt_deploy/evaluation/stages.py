"""One utterance through both sides, stage by stage: where an engine's answer leaves the reference's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from math import inf, log10

import numpy as np

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Array, Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.evaluation.gate import confidences, exact_threshold, passed_faces
from fmmt_deploy.evaluation.scores import DoubleArray, leads, probabilities
from fmmt_deploy.evaluation.shapley import shapley_shares
from fmmt_deploy.evaluation.swapped import SwappedRuns, swapped_runs
from fmmt_deploy.evaluation.utterance import Blame, FaceStage, SideAnswer, StageError, UtteranceDiff
from fmmt_deploy.pipeline.noise import Noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import EMOTIONS, DataSet, Dialogue, FloatArray, GraphName, Utterance

__all__ = ["utterance_diff"]

SUGGESTED = 5


def utterance_diff(
    bundle: Bundle,
    reference: Engines,
    engines: Engines,
    dataset: DataSet,
    utterance: str,
    *,
    noise: Noise = no_noise,
    threads: int = 2,
) -> UtteranceDiff:
    """Answers one utterance on both sides and with every mixture.

    Args:
        bundle: The model.
        reference: Its float32 graphs, opened.
        engines: Its graphs, opened.
        dataset: Where the utterance is.
        utterance: Its id.
        noise: The same draws for both sides.
        threads: Threads that read faces.

    Raises:
        UsageError: The data set has no such utterance.
        DataError: The data lack what the model needs.
        FmmtError: A mixture answers NaN.
    """
    dialogue, found = _found(dataset, utterance)
    alone = DataSet(dataset.source, (replace(dialogue, utterances=(found,)),), (utterance,))
    runs = swapped_runs(bundle, reference, engines, alone, noise=noise, batch_size=1, threads=threads)
    sides = (runs.answers[0][0], runs.answers[-1][0])
    faces = _faces(bundle, found, sides, noise)
    words = _words([Pipeline(bundle, of, batch_size=1) for of in (reference, engines)], alone)
    logits = runs.logits[:, 0]
    lead = leads(logits, np.full(len(logits), logits[0].argmax()))  # of the reference's decision, in each mixture
    return UtteranceDiff(
        utterance=utterance,
        dialogue=dialogue.id,
        text=None if dialogue.texts is None else dialogue.texts[found.position],
        label=None if found.label is None else EMOTIONS[found.label],
        threshold=bundle.manifest.threshold,
        reference=_side(logits[0]),
        engine=_side(logits[-1]),
        lead_change=float(lead[-1] - lead[0]),
        faces=faces,
        unused_faces=max(0, len(found.faces) - bundle.manifest.architecture.vision_length),
        stages=_stages(sides, faces, words, runs.graphs[-1]),
        blame=_blame(runs, lead),
    )


def _found(dataset: DataSet, utterance: str) -> tuple[Dialogue, Utterance]:
    for dialogue in dataset.dialogues:
        for candidate in dialogue.utterances:
            if candidate.id == utterance:
                return dialogue, candidate
    near = get_close_matches(utterance, dataset.order, SUGGESTED)
    shown = ", ".join(near or dataset.order[:SUGGESTED])
    raise UsageError(
        f"There is no utterance '{utterance}' in {dataset.source}.",
        fix=f"{'Did you mean' if near else 'Its utterances begin with'}: {shown}{'?' if near else ' …'}",
    )


def _side(logits: FloatArray) -> SideAnswer:
    exact = logits.astype(np.float64)
    first, second = np.argsort(-exact, kind="stable")[:2].tolist()
    return SideAnswer(
        decision=EMOTIONS[first],
        next=EMOTIONS[second],
        margin=float(exact[first] - exact[second]),
        logits=tuple(exact.tolist()),
        probabilities=tuple(probabilities(exact).tolist()),
    )


def _faces(bundle: Bundle, utterance: Utterance, sides: Sequence[Prediction], noise: Noise) -> tuple[FaceStage, ...]:
    count = len(sides[0].face_logits)
    if not count:
        return ()
    tau, threshold = bundle.manifest.tau, exact_threshold(bundle.manifest.threshold)
    draws = noise(utterance.id, count, bundle.manifest.architecture.vision_length)[:count]
    sure = [confidences(side.face_logits, tau, draws) for side in sides]
    passed = [passed_faces(s - threshold, side.kept_faces) for s, side in zip(sure, sides, strict=True)]
    likeliest = [(side.face_logits.astype(np.float64) + draws).argmax(axis=1) for side in sides]
    return tuple(
        FaceStage(
            face=i,
            path=str(utterance.faces[i]),
            reference_confidence=float(sure[0][i]),
            confidence=float(sure[1][i]),
            reference_passed=bool(passed[0][i]),
            passed=bool(passed[1][i]),
            reference_kept=i in sides[0].kept_faces,
            kept=i in sides[1].kept_faces,
            reference_emotion=EMOTIONS[likeliest[0][i]],
            emotion=EMOTIONS[likeliest[1][i]],
        )
        for i in range(count)
    )


def _words(pipelines: Sequence[Pipeline], alone: DataSet) -> list[Array]:
    """Token states of the utterance's own words on each side, (length, H); none where the model reads no text."""
    if pipelines[0].architecture.fusion is None:
        return []
    (group,) = pipelines[0].plan(alone)
    (member,) = group.members
    own = slice(member.start, member.start + member.length)
    states = [arrays_from_values({"": pipeline.encode(group)})[""] for pipeline in pipelines]
    return [array[member.row, own] for array in states]


def _stages(
    sides: Sequence[Prediction], faces: Sequence[FaceStage], words: Sequence[Array], last: GraphName
) -> tuple[StageError, ...]:
    stages: list[StageError] = []
    if faces:
        sure = (np.array([face.reference_confidence for face in faces]), np.array([face.confidence for face in faces]))
        stages.append(_error("face logits", "swin", sides[0].face_logits, sides[1].face_logits))
        stages.append(_error("confidence", last, *sure))
    if words and words[0].size:
        stages.append(_error("token states", "plm", words[0], words[1]))
    return (*stages, _error("logits", last, sides[0].logits, sides[1].logits))


def _error(stage: str, graph: GraphName, reference: Array, actual: Array) -> StageError:
    exact = reference.astype(np.float64)
    error = actual.astype(np.float64) - exact
    signal, noise = float(np.square(exact).sum()), float(np.square(error).sum())
    relative = 0.0 if not noise else (noise / signal) ** 0.5 if signal else inf
    sqnr = inf if not noise else 10 * log10(signal / noise) if signal else -inf
    return StageError(stage, graph, reference.shape, float(np.abs(error).max()), relative, sqnr)


def _blame(runs: SwappedRuns, lead: DoubleArray) -> tuple[Blame, ...]:
    logits = runs.logits[:, 0].astype(np.float64)
    squares = np.square(logits - logits[0]).sum(axis=1)
    errors = shapley_shares(runs.joined, squares / (squares[-1] or 1.0))
    margins = shapley_shares(runs.joined, lead)
    alone: Mapping[GraphName, int] = {
        graph: runs.joined.index(tuple(other == graph for other in runs.graphs)) for graph in runs.graphs
    }
    return tuple(
        Blame(
            graph,
            float(np.abs(logits[alone[graph]] - logits[0]).max()),
            bool(logits[alone[graph]].argmax() != logits[0].argmax()),
            float(errors[i]),
            float(margins[i]),
        )
        for i, graph in enumerate(runs.graphs)
    )
