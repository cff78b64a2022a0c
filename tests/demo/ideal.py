"""A reader that makes no mistakes: what the demo's data can tell at most, by what the generator knows."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from sklearn.metrics import f1_score

from fmmt_deploy.demo.story import Turn

Source = Literal["words", "voice", "face", "earlier turns"]

SOURCES: tuple[Source, ...] = ("words", "voice", "face", "earlier turns")


def evidence(turns: Sequence[Turn], position: int, without: Collection[Source]) -> bool:
    """Whether anything tells this turn's emotion."""
    turn = turns[position]
    if turn.echo:  # one has to know how the one before felt, by words
        return not {"words", "earlier turns"} & set(without) and turns[position - 1].words_tell
    return (
        (turn.words_tell and "words" not in without)
        or (turn.voice_tells and "voice" not in without)
        or ((turn.images_tell or turn.features_tell) and "face" not in without)
    )


def answers(turns: Sequence[Turn], without: Collection[Source], by_mood: bool) -> list[int]:
    """Where nothing tells, neutral is likeliest; or, `by_mood`, what was last told in the dialogue."""
    found, mood = [], 0
    for position, turn in enumerate(turns):
        if evidence(turns, position, without):
            found.append(turn.label)
            mood = turn.label
        else:
            found.append(mood if by_mood else 0)
    return found


def best_f1(story: Sequence[Sequence[Turn]], without: Collection[Source] = ()) -> float:
    """Weighted F1 of the better way to guess."""
    labels = [turn.label for turns in story for turn in turns if turn.has_features]
    scores = []
    for by_mood in (False, True) if "earlier turns" not in without else (False,):
        found = [
            label
            for turns in story
            for turn, label in zip(turns, answers(turns, without, by_mood), strict=True)
            if turn.has_features
        ]
        scores.append(f1_score(labels, found, average="weighted"))
    return float(np.max(scores))
