"""What the demo's people feel, and by what they show it: dialogues in MELD's proportions and with its oddities.

An emotion shows in the words, in the voice, in the face, or in several of them, and rarely in none; where it does not
show, words are small talk or neutral, voices even, faces neutral or blurred. So each modality tells something that no
other does. Moods last, and people join in: "Me too." has the emotion of the turn before, which shows in nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fmmt_deploy.demo.phrases import all_phrases, draw_echo, draw_sentence, draw_small_talk

__all__ = ["Run", "Turn", "all_phrases", "make_story", "runs_of"]

SHARES = (0.36, 0.13, 0.07, 0.11, 0.16, 0.07, 0.10)
"""How often each emotion is felt: MELD's order of frequency, less steep, so that a small test set has all of them."""

NEUTRAL = 0

CHANGES = 0.15
"""How often a dialogue's mood, the emotion of all turns that are not neutral, is another from a turn on."""

ECHOED = 0.8
"""How often it is then an echo, where the turn before told its emotion in words."""

SHOWN: dict[tuple[bool, bool, bool], float] = {
    (True, False, False): 0.12,
    (False, True, False): 0.22,
    (False, False, True): 0.22,
    (True, True, False): 0.08,
    (True, False, True): 0.08,
    (False, True, True): 0.08,
    (True, True, True): 0.17,
    (False, False, False): 0.03,
}
"""How often an emotion (not neutral) shows in words, voice and face."""

FACES_ALONE, FEATURES_ALONE = 0.5, 0.15
"""Of those that show in the face: how often only in its images, only in its features."""

Run: TypeAlias = tuple[str, ...]
"""What is said in three turns, one after the other; in all of a dialogue that has fewer."""

SPEAKERS = ("Ada", "Ben", "Cleo", "Dan")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of the demo.

    Attributes:
        dialogue: Number of its dialogue.
        utterance: Its number in it, which may skip one, as MELD's do.
        speaker: Who says it.
        text: What is said.
        label: Index into `EMOTIONS`.
        faces: How many face images there are: none, one, or even more than a model reads.
        has_features: False for the one whose text is known but whose clip was unusable.
        words_tell: Whether the words tell the emotion, by themselves or as an echo. Nothing tells `neutral`.
        echo: Whether they tell it by way of the turn before.
        voice_tells: Whether the audio features do.
        images_tell: Whether the face images do.
        features_tell: Whether the vision features do.
    """

    dialogue: int
    utterance: int
    speaker: str
    text: str
    label: int
    faces: int
    has_features: bool
    words_tell: bool
    echo: bool
    voice_tells: bool
    images_tell: bool
    features_tell: bool

    @property
    def id(self) -> str:
        """For example `dia0_utt0`."""
        return f"dia{self.dialogue}_utt{self.utterance}"


def runs_of(turns: Sequence[Turn]) -> set[Run]:
    """Every three turns of a dialogue."""
    texts = [turn.text for turn in turns]
    return {tuple(texts[start : start + 3]) for start in range(max(1, len(texts) - 2))}


def make_story(
    split: str, dialogues: int, vision_length: int, seed: int, said: AbstractSet[Run] = frozenset()
) -> list[list[Turn]]:
    """Makes the dialogues of one split, one to twelve turns each.

    Args:
        split: For example `test`; other splits have other dialogues.
        dialogues: How many, at least three: the first has one turn, the second skips a number, the third lacks a clip.
        vision_length: V; some utterances get more faces than that.
        seed: For the same story again.
        said: What is not said again, because another split has it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    lengths = [1, 5, 6, *rng.integers(2, 13, size=max(dialogues - 3, 0)).tolist()]
    return [_new_dialogue(rng, number, length, vision_length, said) for number, length in enumerate(lengths)]


def _new_dialogue(
    rng: np.random.Generator, number: int, length: int, vision_length: int, said: AbstractSet[Run]
) -> list[Turn]:
    while True:
        turns = _dialogue(rng, number, length, vision_length)
        if said.isdisjoint(runs_of(turns)):
            return turns


def _dialogue(rng: np.random.Generator, number: int, length: int, vision_length: int) -> list[Turn]:
    turns: list[Turn] = []
    mood = _draw_mood(rng)
    for position in range(length):
        mood = _draw_mood(rng) if rng.random() < CHANGES else mood
        label = NEUTRAL if rng.random() < SHARES[NEUTRAL] else mood
        before = turns[-1] if turns else None
        faces = int(rng.choice([0, 1, 2, 3, vision_length, vision_length + 3], p=[0.08, 0.5, 0.27, 0.1, 0.03, 0.02]))
        can_echo = before is not None and before.label == label and before.words_tell and not before.echo
        words, voice, face = (True, False, False) if can_echo and rng.random() < ECHOED else _shown(rng, label, faces)
        echo = words and can_echo and not voice and not face
        how = rng.random() if face else 0.0
        turns.append(
            Turn(
                dialogue=number,
                utterance=position + (number == 1 and position > 1),
                speaker=SPEAKERS[(number + position) % len(SPEAKERS)],
                text=draw_echo(rng) if echo else _text(rng, label if words else NEUTRAL),
                label=label,
                faces=faces,
                has_features=not (number == 2 and position == 3),
                words_tell=words,
                echo=echo,
                voice_tells=voice,
                images_tell=face and how >= FEATURES_ALONE,
                features_tell=face and how < 1 - FACES_ALONE,
            )
        )
    return turns


def _draw_mood(rng: np.random.Generator) -> int:
    """Any emotion but neutral."""
    shares = np.array(SHARES[1:])
    return 1 + int(rng.choice(len(shares), p=shares / shares.sum()))


def _shown(rng: np.random.Generator, label: int, faces: int) -> tuple[bool, bool, bool]:
    """Whether words, voice and face tell; a face that is not seen does not."""
    if label == NEUTRAL:
        return False, False, False
    ways = [shown for shown in SHOWN if faces or not shown[2]]
    shares = np.array([SHOWN[shown] for shown in ways])
    return ways[int(rng.choice(len(ways), p=shares / shares.sum()))]


def _text(rng: np.random.Generator, label: int) -> str:
    small_talk = draw_small_talk(rng)
    if label == NEUTRAL and rng.random() < 0.4:
        return small_talk
    sentence = draw_sentence(rng, label)
    return f"{small_talk} {sentence}" if rng.random() < 0.2 else sentence
