"""What the demo's people say: sentences with places for names and things, by emotion."""

from __future__ import annotations

import numpy as np

from fmmt_deploy.types import EMOTIONS

__all__ = ["all_phrases", "draw_echo", "draw_sentence", "draw_small_talk"]

SENTENCES: dict[str, tuple[str, ...]] = {
    "neutral": (
        "The meeting with {name} is at {hour} on Monday.",
        "I left the {thing} on the table next to the door.",
        "{name} works in the {place}, I think, on the second floor.",
        "We could take the train to the {place}, it leaves at {hour}.",
        "The {thing} is in the {place}, where it always is.",
        "{name} will be back around {hour}, as far as I know.",
    ),
    "surprise": (
        "Oh my god, {name} bought a {thing}!",
        "Wait, you and {name} are married?!",
        "I can't believe it, where did that {thing} come from?",
        "What? Since when is there a {thing} in the {place}?",
        "No way, {name} was in the {place} all the time?",
    ),
    "fear": (
        "Please don't go into the {place}, I heard something moving.",
        "I'm so scared, the lights went out and {name} is not home.",
        "Run, it's coming out of the {place}!",
        "Help, {name}, somebody is hiding behind the {thing}!",
        "I'm afraid of the {place}, my hands are shaking.",
    ),
    "sadness": (
        "I miss {name} so much, it hurts to even say the name.",
        "I'm sorry. I just can't stop crying today.",
        "{name} left, and is never coming back.",
        "I lost the {thing}, my heart is broken.",
        "Nobody came to the {place}, I feel so alone.",
    ),
    "joy": (
        "We won, {name}, we actually won the {thing}!",
        "I am so happy for you and {name}, this is wonderful!",
        "That was the best day of my life, thank you, {name}!",
        "I love the {thing}, it's beautiful, hug me!",
        "Hooray, we are going to the {place} at {hour}!",
    ),
    "disgust": (
        "Ew, that {thing} is disgusting, get it away from me.",
        "You ate it off the {thing}? That makes me sick.",
        "It smells like something died in the {place}, yuck.",
        "Gross, {name}, there is hair on the {thing}.",
        "The filthy {place} turns my stomach.",
    ),
    "anger": (
        "You lied to me about {name}, how dare you!",
        "Get out of my {place}, right now!",
        "I hate it when you touch my {thing}, stop it!",
        "This is all your fault, {name}, you ruined the {thing}!",
        "Shut up, I am furious about the {thing}!",
    ),
}
"""What people say when they feel so; the neutral ones also when they don't show how they feel."""

SMALL_TALK = (
    "Yeah.",
    "No, no, no.",
    "Hey, {name}!",
    "Okay, fine.",
    "You know what?",
    "Well, I guess.",
    "Really?",
    "Look, the {thing}.",
    "…",
)
"""What they say whatever they feel: here only the face and the voice tell."""

ECHOES = ("Me too.", "Same here.", "So do I.", "I feel the same.")
"""What they say when they feel as the one before did: nobody can tell how, who has not heard that."""

WORDS: dict[str, tuple[str, ...]] = {
    "name": ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"),
    "thing": ("lamp", "ring", "sofa", "cake", "radio", "guitar", "jacket", "painting", "sandwich", "phone"),
    "place": ("kitchen", "garden", "cellar", "library", "office", "garage", "hotel"),
    "hour": ("six", "seven", "nine", "ten", "noon"),
}
"""What the sentences are about, whatever the emotion."""


def all_phrases() -> list[str]:
    """Every sentence, and every word in one of them, to make a tokenizer from."""
    sentences = [sentence for each in SENTENCES.values() for sentence in each]
    filled = [
        sentence.format(**{slot: words[number % len(words)] for slot, words in WORDS.items()})
        for number, sentence in enumerate(sentences * max(map(len, WORDS.values())))
    ]
    return [*dict.fromkeys(filled), *(talk.format(name="Ada", thing="lamp") for talk in SMALL_TALK), *ECHOES]


def draw_sentence(rng: np.random.Generator, label: int) -> str:
    """Something that tells the emotion, an index into `EMOTIONS`; of neutral, something that tells none."""
    return _filled(rng, str(rng.choice(SENTENCES[EMOTIONS[label]])))


def draw_small_talk(rng: np.random.Generator) -> str:
    """Something that tells nothing."""
    return _filled(rng, str(rng.choice(SMALL_TALK)))


def draw_echo(rng: np.random.Generator) -> str:
    """Something that tells the emotion of the turn before."""
    return str(rng.choice(ECHOES))


def _filled(rng: np.random.Generator, sentence: str) -> str:
    return sentence.format(**{slot: str(rng.choice(words)) for slot, words in WORDS.items()})
