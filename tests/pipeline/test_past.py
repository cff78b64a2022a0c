"""What a model of past turns answers does not depend on what is said later, in dialogues of any length."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fmmt_deploy.architecture import Architecture, Context, PlmKind
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.torch.load import engines_from_model
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, Dialogue, Utterance
from tests.models import TINY, tiny_source

SHORT, SHORTENED, WINDOWED = (5, 4), (12, 70), (45, 9)
"""Turns, and words a turn: one that fits, one whose turns are shortened, one that is read in windows."""

Later = Callable[[tuple[str, ...], int], tuple[str, ...]]
LATER: dict[str, Later] = {
    "longer": lambda texts, now: texts[: now + 1] + tuple("joy oh no " * 60 for _ in texts[now + 1 :]),
    "not said yet": lambda texts, now: texts[: now + 1],
    "many more": lambda texts, now: texts + texts[:now] * 3,
}


class Reader:
    """A tiny model for the pipeline, of either context."""

    def __init__(self, kind: PlmKind, context: Context) -> None:
        self.architecture: Architecture = replace(TINY[kind], context=context)
        self._source = tiny_source(kind)
        self.engines = Engines("torch", engines_from_model(self._source.model, 2))

    def tokenizer_json(self) -> str | None:
        return self._source.tokenizer

    def answers(self, texts: tuple[str, ...], positions: tuple[int, ...]) -> np.ndarray:
        utterances = tuple(self._utterance(position) for position in positions)
        dialogue = Dialogue("dia0", texts, None, utterances)
        dataset = DataSet("made", (dialogue,), tuple(utterance.id for utterance in utterances))
        return np.array([found.logits for found in Pipeline(self, self.engines).in_order(dataset)])

    def _utterance(self, position: int) -> Utterance:
        sizes = self.architecture.fusion
        assert sizes is not None
        draws = np.random.default_rng(position)
        audio = draws.standard_normal((sizes.audio_length, sizes.audio_size)).astype(np.float32)
        vision = np.zeros((sizes.vision_length, sizes.vision_size), np.float32)
        return Utterance(f"dia0_utt{position}", position, 0, (), audio, len(audio), vision, 0)


@pytest.fixture(scope="module", params=["roberta", "bert"])
def kind(request: pytest.FixtureRequest) -> PlmKind:
    found: PlmKind = request.param
    return found


def conversation(turns: int, words: int) -> tuple[str, ...]:
    draws = np.random.default_rng(turns)
    return tuple(" ".join(draws.choice(["oh", "no", "well", "you", "know", "!"], words)) for _ in range(turns))


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("shape", [SHORT, SHORTENED, WINDOWED], ids=["short", "shortened", "windowed"])
def test_what_is_said_later_changes_nothing(kind: PlmKind, shape: tuple[int, int], later: str) -> None:
    texts = conversation(*shape)
    now = len(texts) - 3
    known, changed = (0, now // 2, now), LATER[later](texts, now)
    reader = Reader(kind, "past")
    np.testing.assert_allclose(reader.answers(changed, known), reader.answers(texts, known), rtol=0, atol=1e-6)


def test_earlier_turns_are_read_and_a_model_of_dialogues_reads_later_ones_too(kind: PlmKind) -> None:
    texts = conversation(*SHORT)
    last, other = (len(texts) - 1,), (*texts[:-1], "joy oh no " * 4)
    past, whole = Reader(kind, "past"), Reader(kind, "dialogue")
    assert np.abs(past.answers(("oh no joy", *texts[1:]), last) - past.answers(texts, last)).max() > 1e-4
    assert np.abs(whole.answers(other, (0,)) - whole.answers(texts, (0,))).max() > 1e-4
    np.testing.assert_allclose(past.answers(texts, last), whole.answers(texts, last), rtol=0, atol=1e-6)
