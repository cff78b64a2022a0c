"""What the demo's people say and feel: dialogues made from phrases, in MELD's proportions and with its oddities."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fmmt_deploy.types import EMOTIONS

__all__ = ["Run", "Turn", "all_phrases", "make_story", "runs_of"]

SHARES = (0.40, 0.13, 0.05, 0.10, 0.17, 0.05, 0.10)
"""How often each emotion is felt: MELD's order of frequency, less steep, so that a small test set has all of them."""

PHRASES: dict[str, tuple[str, ...]] = {
    "neutral": (
        "The meeting is at ten on Monday.",
        "I left the keys on the table next to the door.",
        "He works at the library, I think, on the second floor.",
        "We could take the train, it leaves every hour.",
    ),
    "surprise": (
        "Oh my god, you cut all of your hair!",
        "Wait, you two are married?!",
        "I can't believe it, where did that come from?",
        "What? Since when do you speak Italian?",
    ),
    "fear": (
        "Please don't go in there, I heard something moving.",
        "I'm so scared, the lights went out and nobody is home.",
        "Run, it's coming this way!",
    ),
    "sadness": (
        "I miss him so much, it hurts to even say his name.",
        "I'm sorry. I just can't stop crying today.",
        "She left, and she is never coming back.",
        "I failed again, nothing I do is ever enough.",
    ),
    "joy": (
        "We won, we actually won the whole thing!",
        "I am so happy for you, this is wonderful!",
        "That was the best birthday of my life, thank you!",
        "I love it, it's beautiful, come here and hug me!",
    ),
    "disgust": (
        "Ew, that is disgusting, get it away from me.",
        "You ate it off the floor? That makes me sick.",
        "It smells like something died in your fridge, yuck.",
    ),
    "anger": (
        "You lied to me, how dare you!",
        "Get out of my house, right now, and never come back!",
        "I hate it when you touch my things, stop it!",
        "This is all your fault, you always do this to me!",
    ),
}
"""What people say when they feel so."""

SMALL_TALK = ("Yeah.", "No, no, no.", "Hey!", "Okay, fine.", "You know what?", "Well, I guess so.", "Really?", "…")
"""What they say whatever they feel: here only the face and the voice tell."""

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
    """

    dialogue: int
    utterance: int
    speaker: str
    text: str
    label: int
    faces: int
    has_features: bool

    @property
    def id(self) -> str:
        """For example `dia0_utt0`."""
        return f"dia{self.dialogue}_utt{self.utterance}"


def all_phrases() -> list[str]:
    """Everything that is ever said, to make a tokenizer from."""
    return [phrase for phrases in PHRASES.values() for phrase in phrases] + list(SMALL_TALK)


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
    turns, label = [], _draw_label(rng)
    for position in range(length):
        if rng.random() > 0.4:  # moods last, as in real conversations
            label = _draw_label(rng)
        turns.append(
            Turn(
                dialogue=number,
                utterance=position + (number == 1 and position > 1),
                speaker=SPEAKERS[(number + position) % len(SPEAKERS)],
                text=_text(rng, label),
                label=label,
                faces=int(
                    rng.choice([0, 1, 2, 3, vision_length, vision_length + 3], p=[0.08, 0.3, 0.3, 0.22, 0.05, 0.05])
                ),
                has_features=not (number == 2 and position == 3),
            )
        )
    return turns


def _draw_label(rng: np.random.Generator) -> int:
    return int(rng.choice(len(EMOTIONS), p=SHARES))


def _text(rng: np.random.Generator, label: int) -> str:
    talk = str(rng.choice(SMALL_TALK))
    if rng.random() < 0.3:
        return talk
    words = [str(phrase) for phrase in rng.choice(PHRASES[EMOTIONS[label]], size=rng.integers(1, 3), replace=False)]
    return " ".join([talk, *words] if rng.random() < 0.3 else words)
