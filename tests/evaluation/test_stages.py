"""One utterance through two sides: outputs asked of the engines by hand, formulas in NumPy, softmax by SciPy."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from scipy.special import softmax

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.evaluation.stages import utterance_diff
from fmmt_deploy.evaluation.utterance import StageError, UtteranceDiff
from fmmt_deploy.pipeline.noise import gumbel_noise
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import EMOTIONS, DataSet, GraphName
from tests.parity.faults import Outputs, spoilt
from tests.pipeline.conversations import conversations, dataset, only

Bundles = Callable[[str], Bundle]
GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion")
NOISE = gumbel_noise(3)
MANY = "faces_3"
"""Has nine faces, of which the model has places for six."""


def shrunk(outputs: Outputs) -> Outputs:
    return {name: array * np.float32(0.5) if array.dtype.kind == "f" else array for name, array in outputs.items()}


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return dataset(conversations(tmp_path_factory.mktemp("faces"))[:3])


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundles) -> Bundle:
    return tiny_bundle("roberta")


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> Iterator[Engines]:
    with open_engines(bundle, "ort", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def all_off(engines: Engines) -> Engines:
    return spoilt(engines, GRAPHS, dict.fromkeys(GRAPHS, shrunk))


@pytest.fixture(scope="module")
def found(bundle: Bundle, engines: Engines, all_off: Engines, talks: DataSet) -> UtteranceDiff:
    return utterance_diff(bundle, engines, all_off, talks, MANY)


def stages(found: UtteranceDiff) -> dict[str, StageError]:
    return {stage.stage: stage for stage in found.stages}


def check(stage: StageError, reference: np.ndarray, actual: np.ndarray) -> None:
    reference, error = reference.astype(np.float64), actual.astype(np.float64) - reference
    assert stage.shape == reference.shape
    relative = np.linalg.norm(error) / np.linalg.norm(reference)
    assert stage.largest == pytest.approx(np.abs(error).max(), rel=1e-4)
    assert stage.relative == pytest.approx(relative, rel=1e-4)
    assert stage.sqnr_db == pytest.approx(-20 * np.log10(relative), abs=1e-3)


def test_answers_are_those_of_the_two_runs(
    found: UtteranceDiff, bundle: Bundle, engines: Engines, all_off: Engines, talks: DataSet
) -> None:
    for side, opened in ((found.reference, engines), (found.engine, all_off)):
        answers = {answer.utterance: answer for answer in Pipeline(bundle, opened, batch_size=1).run(talks)}
        logits = answers[MANY].logits
        np.testing.assert_allclose(side.logits, logits, rtol=0, atol=1e-5)
        assert side.probabilities == pytest.approx(softmax(logits.astype(float)).tolist(), abs=1e-5)
        first, second = np.argsort(-logits)[:2]
        assert (side.decision, side.next) == (EMOTIONS[first], EMOTIONS[second])
        assert side.margin == pytest.approx(float(logits[first]) - float(logits[second]), abs=1e-5)
    chosen = EMOTIONS.index(found.reference.decision)
    lead = found.engine.logits[chosen] - max(np.delete(found.engine.logits, chosen))
    assert found.lead_change == pytest.approx(lead - found.reference.margin)
    assert found.changed is (found.reference.decision != found.engine.decision)


def test_the_utterance_is_told(found: UtteranceDiff, talks: DataSet) -> None:
    dialogue = talks.dialogues[0]
    utterance = dialogue.utterances[3]
    assert (found.utterance, found.dialogue) == (MANY, "faces") == (utterance.id, dialogue.id)
    assert dialogue.texts is not None
    assert found.text == dialogue.texts[3]
    assert utterance.label is not None
    assert found.label == EMOTIONS[utterance.label]
    assert (found.unused_faces, found.threshold) == (3, 0.2)


def test_without_words_and_label(bundle: Bundle, engines: Engines, talks: DataSet) -> None:
    """`silent_2` says nothing and shows nobody; nothing is compared of what is not there."""
    unlabelled = dataset(
        [replace(d, utterances=tuple(replace(u, label=None) for u in d.utterances)) for d in talks.dialogues]
    )
    found = utterance_diff(bundle, engines, engines, unlabelled, "silent_2")
    assert (found.text, found.label, found.faces, found.unused_faces) == ("", None, (), 0)
    assert [stage.stage for stage in found.stages] == ["logits"]


def test_errors_of_each_stage(found: UtteranceDiff, bundle: Bundle, engines: Engines, talks: DataSet) -> None:
    utterance = talks.dialogues[0].utterances[3]
    assert list(stages(found)) == ["face logits", "confidence", "token states", "logits"]
    faces = engines["swin"].run({"faces": read_faces(utterance.faces[:6])})["face_logits"]
    check(stages(found)["face logits"], faces, faces * np.float32(0.5))
    sure = [(softmax(side.astype(float), axis=1) ** 2).sum(axis=1) for side in (faces, faces / 2)]
    check(stages(found)["confidence"], *sure)
    assert [face.reference_confidence for face in found.faces] == pytest.approx(sure[0].tolist(), abs=1e-5)
    assert [face.confidence for face in found.faces] == pytest.approx(sure[1].tolist(), abs=1e-5)
    tokenizer, texts = Pipeline(bundle, engines).tokenizer, talks.dialogues[0].texts
    assert tokenizer is not None
    assert texts is not None
    tokens = tokenizer.encode(texts)
    ids, own = tokens.input_ids[None], slice(tokens.starts[3], tokens.starts[3] + tokens.lengths[3])
    states = engines["plm"].run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["token_states"][0, own]
    check(stages(found)["token states"], states, states / 2)
    check(stages(found)["logits"], np.array(found.reference.logits), np.array(found.engine.logits))
    assert {name: stage.graph for name, stage in stages(found).items()} == {
        "face logits": "swin",
        "confidence": "fusion",
        "token states": "plm",
        "logits": "fusion",
    }


@pytest.mark.parametrize("noisy", [False, True])
def test_faces_are_told_as_both_gates_decide(
    bundle: Bundle, engines: Engines, all_off: Engines, talks: DataSet, noisy: bool
) -> None:
    noise = {"noise": NOISE} if noisy else {}
    runs = [
        {answer.utterance: answer for answer in Pipeline(bundle, side).run(talks, *noise.values())}
        for side in (engines, all_off)
    ]
    turned = 0
    for name in ("faces_1", "faces_2", MANY, "alone_0"):
        diff = utterance_diff(bundle, engines, all_off, talks, name, **noise)
        kept = [runs[side][name].kept_faces for side in (0, 1)]
        assert tuple(face.face for face in diff.faces if face.reference_kept) == kept[0]
        assert tuple(face.face for face in diff.faces if face.kept) == kept[1]
        draws = NOISE(name, len(diff.faces), 6)[: len(diff.faces)] if noisy else 0
        for side, (confidence, passed, emotion) in enumerate(
            (("reference_confidence", "reference_passed", "reference_emotion"), ("confidence", "passed", "emotion"))
        ):
            p = softmax(runs[side][name].face_logits.astype(float) + draws, axis=1)
            assert [getattr(face, confidence) for face in diff.faces] == pytest.approx((p**2).sum(1).tolist(), abs=1e-5)
            assert [getattr(face, passed) for face in diff.faces] == ((p**2).sum(1) > 0.2).tolist()
            assert [getattr(face, emotion) for face in diff.faces] == [EMOTIONS[i] for i in p.argmax(1)]
        turned += sum(face.kept != face.reference_kept for face in diff.faces)
    assert turned or noisy


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_graph_that_is_off_is_to_blame(bundle: Bundle, engines: Engines, talks: DataSet, graph: GraphName) -> None:
    def turned(outputs: Outputs) -> Outputs:
        return {name: -3 * array if array.dtype.kind == "f" else array for name, array in outputs.items()}

    diff = utterance_diff(bundle, engines, spoilt(engines, GRAPHS, {graph: turned}), talks, MANY)
    blame = {each.graph: each for each in diff.blame}
    error = np.abs(np.subtract(diff.engine.logits, diff.reference.logits)).max()
    for other in blame.values():
        own = other.graph == graph
        assert other.error_share == pytest.approx(1.0 if own else 0.0)
        assert other.margin_share == pytest.approx(diff.lead_change if own else 0.0)
        assert other.alone == pytest.approx(error if own else 0.0)
        assert other.flips is (own and diff.changed)
    if graph == "fusion":  # its very answers are turned
        assert diff.changed
        assert blame["fusion"].flips


def test_blame_adds_up(found: UtteranceDiff) -> None:
    assert sum(each.error_share for each in found.blame) == pytest.approx(1)
    assert sum(each.margin_share for each in found.blame) == pytest.approx(found.lead_change)
    assert min(each.alone for each in found.blame) > 0


def test_nothing_is_off(bundle: Bundle, engines: Engines, talks: DataSet) -> None:
    found = utterance_diff(bundle, engines, engines, talks, MANY)
    assert {(stage.largest, stage.relative, stage.sqnr_db) for stage in found.stages} == {(0.0, 0.0, inf)}
    assert {(each.alone, each.error_share, each.margin_share, each.flips) for each in found.blame} == {(0, 0, 0, False)}
    assert found.lead_change == 0


def test_a_model_of_one_graph(tiny_bundle: Bundles, talks: DataSet) -> None:
    bundle = tiny_bundle("unimodal")
    seen = dataset([only(d, [u.position for u in d.utterances if u.vision_length]) for d in talks.dialogues])
    with open_engines(bundle, "ort", threads=1) as engines:
        diff = utterance_diff(bundle, engines, spoilt(engines, ("unimodal",), {"unimodal": shrunk}), seen, MANY)
    assert diff.faces == ()
    (stage,), (blame,) = diff.stages, diff.blame
    assert (stage.stage, stage.graph, blame.graph, blame.error_share) == ("logits", "unimodal", "unimodal", 1.0)
    assert stage.relative == pytest.approx(0.5)
    assert stage.sqnr_db == pytest.approx(20 * np.log10(2))


def test_an_unknown_utterance_gets_near_ones_named(bundle: Bundle, engines: Engines, talks: DataSet) -> None:
    with pytest.raises(UsageError, match="There is no utterance 'faces_33' in made up") as caught:
        utterance_diff(bundle, engines, engines, talks, "faces_33")
    assert caught.value.fix.startswith("Did you mean: faces_3, ")
    with pytest.raises(UsageError, match="no utterance 'q'") as caught:
        utterance_diff(bundle, engines, engines, talks, "q")
    assert caught.value.fix.startswith("Its utterances begin with: faces_0, faces_1")


def test_it_is_plain_json(found: UtteranceDiff) -> None:
    shown = json.loads(json.dumps(found.to_json()))
    assert {"utterance", "reference", "engine", "faces", "stages", "blame", "changed"} <= set(shown)
    assert len(shown["faces"]) == 6
