"""An answer is the same whatever the batch, the order and the company, in every engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.pipeline.noise import Noise, gumbel_noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import Dialogue
from tests.models import ON_CPU
from tests.pipeline.conversations import conversations, dataset, only

ATOL = 1e-5
"""As promised: matrix products of other sizes may sum in another order."""

NOISES: dict[str, Noise] = {"none": no_noise, "gumbel": gumbel_noise(3)}


@dataclass(frozen=True)
class Setting:
    """A model in one engine, the conversations, and the answers given one utterance at a time."""

    bundle: Bundle
    engines: Engines
    dialogues: tuple[Dialogue, ...]
    alone: dict[str, dict[str, Prediction]]

    def answers(self, dialogues: Sequence[Dialogue], noise: str, **options: int) -> list[Prediction]:
        return Pipeline(self.bundle, self.engines, **options).in_order(dataset(dialogues), NOISES[noise])

    def check(self, found: Sequence[Prediction], noise: str) -> None:
        for answer in found:
            expected = self.alone[noise][answer.utterance]
            assert answer.kept_faces == expected.kept_faces
            assert answer.label == expected.label
            np.testing.assert_allclose(answer.logits, expected.logits, rtol=0, atol=ATOL)


@pytest.fixture(scope="module", params=[(m, e) for m in ("roberta", "bert", "unimodal") for e in ON_CPU], ids=str)
def setting(
    request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    model, kind = request.param
    bundle = tiny_bundle(model)
    dialogues = conversations(tmp_path_factory.mktemp("faces"))
    if model == "unimodal":  # which reads nothing but vision
        seen = [[u.position for u in d.utterances if u.vision_length] for d in dialogues]
        dialogues = tuple(only(dialogue, positions) for dialogue, positions in zip(dialogues, seen, strict=True))
    with open_engines(bundle, kind, threads=1) as engines:
        yield Setting(bundle, engines, dialogues, alone(bundle, engines, dialogues))


def alone(bundle: Bundle, engines: Engines, dialogues: Sequence[Dialogue]) -> dict[str, dict[str, Prediction]]:
    pipeline = Pipeline(bundle, engines, batch_size=1, face_batch=1, threads=1)
    parts = [only(dialogue, [u.position]) for dialogue in dialogues for u in dialogue.utterances]
    return {
        name: {part.utterances[0].id: pipeline.in_order(dataset([part]), noise)[0] for part in parts}
        for name, noise in NOISES.items()
    }


def test_the_conversations_are_of_every_kind(setting: Setting) -> None:
    """Else the properties below would say less than they seem to."""
    answers = setting.alone["none"]
    logits = np.stack([answer.logits for answer in answers.values()])
    assert len(np.unique(logits.round(3), axis=0)) == len(logits)
    utterances = {u.id: u for dialogue in setting.dialogues for u in dialogue.utterances}
    assert {len(u.faces) for u in utterances.values()} >= {1, 6, 9}
    if "fusion" not in setting.engines:
        return  # the rest is about faces and words
    kept = {name: (len(a.kept_faces), utterances[name].vision_length) for name, a in answers.items()}
    assert any(0 < few < all_ for few, all_ in kept.values())
    assert kept["faces_0"] == (0, 0)
    pipeline = Pipeline(setting.bundle, setting.engines)
    windows = {d.id: sum(len(group.windows) for group in pipeline.plan(dataset([d]))) for d in setting.dialogues}
    assert windows["faces"] == windows["alone"] == windows["silent"] == windows["short"] == 1
    assert windows["long"] > 1


def test_the_gate_is_not_on_edge(setting: Setting) -> None:
    """Every face's confidence is further from the threshold than rounding can push it."""
    if "swin" not in setting.engines:
        return
    paths = sorted({path for d in setting.dialogues for u in d.utterances for path in u.faces})
    logits = setting.engines["swin"].run({"faces": read_faces(paths)})["face_logits"].astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = ((powers / powers.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    threshold = setting.bundle.manifest.threshold
    assert np.abs(confidence - threshold).min() > 1e-4
    assert (confidence > threshold).any()
    assert (confidence < threshold).any()


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_batch_order_and_company_do_not_matter(setting: Setting, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(setting.dialogues))), "order")
    chosen = order[: data.draw(st.integers(1, len(order)), "dialogues")]
    dialogues = [
        only(d, data.draw(st.lists(st.sampled_from([u.position for u in d.utterances]), min_size=1), f"of {d.id}"))
        for d in (setting.dialogues[i] for i in chosen)
    ]
    noise = data.draw(st.sampled_from(sorted(NOISES)), "noise")
    options = {
        "batch_size": data.draw(st.integers(1, 20), "batch size"),
        "face_batch": data.draw(st.integers(1, 9), "face batch"),
        "threads": data.draw(st.integers(1, 3), "threads"),
    }
    found = setting.answers(dialogues, noise, **options)
    assert [answer.utterance for answer in found] == [u.id for d in dialogues for u in d.utterances]
    setting.check(found, noise)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("batch_size", [2, 100])
def test_all_at_once(setting: Setting, noise: str, batch_size: int) -> None:
    setting.check(setting.answers(setting.dialogues, noise, batch_size=batch_size, face_batch=64), noise)
