"""The discontinuity audit on planted answers: softmax by SciPy, F1 by scikit-learn, counts by hand."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.errors import DataError, NotEquivalentError
from fmmt_deploy.evaluation.audit import UsedFaces, audit
from fmmt_deploy.evaluation.gate import confidences, exact_threshold, passed_faces
from fmmt_deploy.pipeline.noise import Noise, gumbel_noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import FloatArray
from tests.pipeline.conversations import conversations, dataset

V = 4
SURE = np.eye(7, dtype=np.float32)[0] * 3
"""Face logits far above the published threshold of 0.2."""

UNSURE = np.zeros(7, np.float32)
"""Uniform: Σp² is 1/7, below it."""


def answer(
    name: str, decision: int = 0, lead: float = 1.0, kept: Sequence[int] = (), faces: Sequence[FloatArray] = ()
) -> Prediction:
    logits = np.zeros(7, np.float32)
    logits[decision] = lead
    return Prediction(name, logits, tuple(kept), np.array(faces, np.float32).reshape(-1, 7))


def sum_of_squares(face_logits: FloatArray, tau: float = 1.0) -> np.ndarray:
    return (softmax(face_logits.astype(np.float64) / tau, axis=-1) ** 2).sum(axis=-1)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_confidence_is_the_sum_of_squared_probabilities_of_the_noisy_logits(tau: float) -> None:
    rng = np.random.default_rng(0)
    logits, noise = (5 * rng.standard_normal((50, 7)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(confidences(logits, tau, noise), sum_of_squares(logits + noise.astype(float), tau))
    np.testing.assert_allclose(confidences(logits, tau), sum_of_squares(logits, tau))
    assert confidences(np.full((1, 7), 1e30, np.float32), tau) == pytest.approx([1 / 7])


@pytest.mark.parametrize(
    ("margins", "kept", "passed"),
    [
        ((0.1, -0.1, 0.2), (0, 2), (True, False, True)),
        ((0.1, 1e-9, 0.2), (0, 2), (True, False, True)),  # on the edge, told as the graph decided
        ((0.1, 0.2), (0, 1), (True, True)),
        ((-0.1, -0.2), (0, 1), (False, False)),  # none passed, so all are used
        ((0.1, -1e-9), (0, 1), (True, True)),
        ((1e-9, -0.1), (0, 1), (False, False)),
        ((), (), ()),
    ],
)
def test_who_passed_is_told_by_who_was_kept(
    margins: Sequence[float], kept: Sequence[int], passed: Sequence[bool]
) -> None:
    assert passed_faces(np.array(margins), kept).tolist() == list(passed)


def some_noise(utterance: str, faces: int, vision_length: int, /) -> FloatArray:
    """So little that not every face passes."""
    return np.float32(0.3) * gumbel_noise(3)(utterance, faces, vision_length)


@pytest.mark.parametrize("noise", [no_noise, some_noise])
def test_the_margin_is_what_the_graph_decides_by(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, noise: Noise
) -> None:
    """The sign of each face's margin foretells which faces a real graph keeps."""
    bundle = tiny_bundle("roberta")
    length = bundle.manifest.architecture.vision_length
    with open_engines(bundle, "ort", threads=1) as engines:
        answers = Pipeline(bundle, engines).in_order(dataset(conversations(tmp_path)), noise)
    seen = set()
    for given in answers:
        faces = len(given.face_logits)
        draws = noise(given.utterance, faces, length)[:faces]
        margins = confidences(given.face_logits, bundle.manifest.tau, draws) - exact_threshold(
            bundle.manifest.threshold
        )
        sure = np.flatnonzero(margins > 0).tolist()
        assert given.kept_faces == tuple(sure or range(faces))
        assert passed_faces(margins, given.kept_faces).tolist() == (margins > 0).tolist()
        seen |= set((margins > 0).tolist())
    assert seen == {False, True}
    itself = audit(answers, answers, [0] * len(answers), vision_length=length, tau=1.0, threshold=0.2, noise=noise)
    assert itself.gate is not None
    assert itself.gate.count == sum(len(given.face_logits) for given in answers) > 10
    assert (itself.gate.crossed, itself.decision.crossed, itself.gate.near, itself.gate.expected) == (0, 0, 0, 0)


def test_a_face_that_crosses_is_named_with_its_margins() -> None:
    below = np.array([0.1, 0, 0, 0, 0, 0, 0], np.float32)
    reference = [
        answer("a", kept=(0,), faces=(SURE, UNSURE)),
        answer("b", kept=(0, 1), faces=(SURE, SURE)),
        answer("c"),
    ]
    engine = [
        answer("a", kept=(0, 1), faces=(SURE, SURE)),
        answer("b", kept=(0, 1), faces=(below, UNSURE)),  # none passes, so all are kept, and yet two crossed
        answer("c"),
    ]
    found = audit(reference, engine, [0, 0, 0], vision_length=V, tau=1.0, threshold=0.2).gate
    assert found is not None
    assert (found.name, found.count, found.crossed, found.near, found.within_largest) == ("gate", 4, 3, 3, 4)
    assert [(item.utterance, item.face) for item in found.items] == [("a", 1), ("b", 0), ("b", 1)]
    sure, unsure, changed = (float(sum_of_squares(rows)) - float(np.float32(0.2)) for rows in (SURE, UNSURE, below))
    exactly = partial(pytest.approx, rel=1e-9)  # 0.2 in float32 is another number than 0.2
    assert found.items[0].reference_margin == exactly(unsure)
    assert found.items[0].margin == exactly(sure)
    assert found.items[1].margin == pytest.approx(changed)
    errors = np.abs([0, sure - unsure, changed - sure, unsure - sure])
    assert [found.error.p50, found.error.p99] == pytest.approx(np.percentile(errors, [50, 99]).tolist())
    assert found.error.largest == pytest.approx(errors.max())


def test_noise_and_threshold_and_tau_are_those_of_the_run() -> None:
    """Noise that turns a uniform face into a sure one; a threshold between the two; a temperature that levels both."""

    def surely(_: str, faces: int, length: int, /) -> FloatArray:
        return np.where(np.arange(length)[:, None] < faces, SURE, 0).astype(np.float32)

    runs = [[answer("a", kept=(0,), faces=(UNSURE,))]] * 2

    def margin(threshold: float, tau: float, noise: Noise) -> float:
        gate = audit(*runs, [0], vision_length=V, threshold=threshold, tau=tau, noise=noise).gate
        assert gate is not None
        (count,) = (i for i, n in enumerate(gate.histogram.counts) if n)
        return gate.histogram.edges[count + 1]

    exact = {
        (t, tau, name): abs(float(sum_of_squares(UNSURE + noise("a", 1, V)[0], tau)) - t)
        for t in (0.2, 0.7)
        for tau in (1.0, 50.0)
        for name, noise in (("none", no_noise), ("surely", surely))
    }
    for (threshold, tau, name), expected in exact.items():
        upper = margin(threshold, tau, no_noise if name == "none" else surely)
        assert upper / 10**0.5 <= expected < upper


def test_margins_of_decisions_are_leads_of_the_reference_s_choice() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((300, 7)).astype(np.float32)
    logits = (reference + 0.3 * rng.standard_normal((300, 7))).astype(np.float32)
    names = [f"u{i}" for i in range(300)]
    runs = [[Prediction(n, row, ()) for n, row in zip(names, side, strict=True)] for side in (reference, logits)]
    found = audit(*runs, [0] * 300, vision_length=V, tau=1.0, threshold=0.2)
    edge = found.decision
    chosen, rows = reference.argmax(1), np.arange(300)
    ordered = np.sort(reference.astype(np.float64), axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    others = np.where(np.eye(7, dtype=bool)[chosen], -np.inf, logits.astype(np.float64)).max(axis=1)
    engine = logits[rows, chosen].astype(np.float64) - others
    crossed = np.flatnonzero(logits.argmax(1) != chosen)
    assert found.gate is None
    assert len(crossed) == edge.crossed > 10
    assert {item.utterance for item in edge.items} == {names[i] for i in crossed}
    by_name = {item.utterance: item for item in edge.items}
    for i in crossed:
        item = by_name[names[i]]
        assert (item.face, item.reference_margin, item.margin) == (
            None,
            pytest.approx(lead[i]),
            pytest.approx(engine[i]),
        )
        assert item.margin < 0 < item.reference_margin
    error = np.abs(engine - lead)
    assert (edge.near, edge.within_largest) == (int((lead <= error).sum()), int((lead <= error.max()).sum()))
    assert edge.crossed <= edge.near < edge.within_largest
    assert [item.reference_margin for item in edge.items] == sorted(item.reference_margin for item in edge.items)
    counts, edges = np.array(edge.histogram.counts), edge.histogram.edges
    assert counts.tolist() == [int(((lead >= a) & (lead < b)).sum()) for a, b in pairwise(edges)]
    assert counts.sum() == 300


def test_f1_is_divided_among_the_gate_and_the_rest() -> None:
    rng = np.random.default_rng(0)
    labels, reference, decisions = (rng.integers(0, 7, 400) for _ in range(3))
    gate = rng.random(400) < 0.3
    runs = [
        [answer(f"u{i}", int(d), kept=(0,) if g else (0, 1), faces=(SURE, SURE)) for i, (d, g) in enumerate(both)]
        for both in (zip(reference, [False] * 400, strict=True), zip(decisions, gate, strict=True))
    ]
    f1 = {
        (a, b): f1_score(labels, np.where(np.where(gate, a, b), decisions, reference), average="weighted")
        for a in (False, True)
        for b in (False, True)
    }
    parts = audit(*runs, labels.tolist(), vision_length=V, tau=1.0, threshold=0.2).f1
    assert parts.gate_utterances == gate.sum()
    assert parts.difference == pytest.approx(f1[True, True] - f1[False, False])
    alone, last = f1[True, False] - f1[False, False], f1[True, True] - f1[False, True]
    assert parts.through_the_gate == pytest.approx((alone + last) / 2)
    assert parts.through_the_gate + parts.elsewhere == pytest.approx(parts.difference, abs=1e-15)
    assert abs(parts.elsewhere) > 1e-3


def test_a_change_without_other_faces_is_none_of_the_gate_s() -> None:
    reference = [answer("a", 0, kept=(0,), faces=(SURE,)), answer("b", 1, kept=(0,), faces=(SURE,))]
    engine = [reference[0], answer("b", 2, kept=(0,), faces=(SURE,))]
    parts = audit(reference, engine, [0, 1], vision_length=V, tau=1.0, threshold=0.2).f1
    assert (parts.through_the_gate, parts.gate_utterances) == (0.0, 0)
    assert parts.elsewhere == parts.difference < 0


def test_faces_are_told_where_the_answer_or_the_faces_are_others() -> None:
    same, other = answer("same", 0, kept=(0,), faces=(SURE,)), answer("faces", 1, kept=(0,), faces=(SURE, UNSURE))
    turned = answer("answer", 2, kept=(0,), faces=(SURE,))
    engine = [same, replace(other, kept_faces=(0, 1)), answer("answer", 3, kept=(0,), faces=(SURE,))]
    found = audit([same, other, turned], engine, [0, 1, 2], vision_length=V, tau=1.0, threshold=0.2).faces
    assert found == {"faces": UsedFaces((0,), (0, 1)), "answer": UsedFaces((0,), (0,))}


def test_it_is_plain_json() -> None:
    reference = [answer("a", 0, kept=(0,), faces=(SURE, UNSURE))]
    engine = [answer("a", 1, kept=(0, 1), faces=(SURE, SURE))]
    shown = json.loads(json.dumps(audit(reference, engine, [0], vision_length=V, tau=1.0, threshold=0.2).to_json()))
    assert set(shown) == {"gate", "decision", "f1", "faces"}
    assert shown["faces"] == {"a": {"reference": [0], "engine": [0, 1]}}
    assert {"name", "count", "error", "near", "crossed", "histogram", "items"} <= set(shown["gate"])
    assert set(shown["gate"]["error"]) == {"p50", "p99", "largest"}
    assert shown["gate"]["items"][0]["face"] == 1
    assert shown["decision"]["items"][0]["utterance"] == "a"


@pytest.mark.parametrize(
    ("engine", "error", "words"),
    [
        ([answer("b")], DataError, "same utterances in the same order"),
        ([answer("a"), answer("b")], DataError, "same utterances in the same order"),
        ([answer("a", faces=(SURE,))], DataError, "same faces of a, found 0 and 1"),
        ([answer("a", lead=float("nan"))], NotEquivalentError, "found NaN or infinity"),
    ],
)
def test_runs_that_can_t_be_compared(engine: list[Prediction], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        audit([answer("a")], engine, [0], vision_length=V, tau=1.0, threshold=0.2)


def test_labels_are_needed() -> None:
    with pytest.raises(DataError, match="label"):
        audit([answer("a")], [answer("a")], [None], vision_length=V, tau=1.0, threshold=0.2)
