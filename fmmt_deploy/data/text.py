"""From the words of a dialogue to token sequences, exactly as the published model joins and truncates them.

Source: the published preprocessing (Zheng et al., ACL 2023, as released). One sequence a dialogue:
`<s> u0 </s> </s> u1 </s> … </s>` (RoBERTa) or `[CLS] u0 [SEP] u1 [SEP] … [SEP]` (BERT). While the turns' own
tokens are more than the model's positions less the special tokens of 34 turns (512 − 68 or 512 − 34), the longest turn,
the first of equals, loses its last token.

Where that still passes the model's positions (only with more than 34 turns, or exactly 34 in BERT), the published code
fails. Here each target utterance is then read in a window: 34 neighbouring turns (33 where BERT's 34 don't fit) with
the target in the middle, moved inside at the dialogue's ends, joined and truncated by the same rules. A dialogue that
fits is never windowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from tokenizers import Tokenizer

from fmmt_deploy.architecture import Context, PlmKind
from fmmt_deploy.data.assembly import check_says_something
from fmmt_deploy.data.tokenizer_files import SPECIAL_TOKENS, plain_tokenizer_json, tokenizer_json
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import Dialogue, IntArray, TokenizedDialogue

__all__ = [
    "RESERVED_TURNS",
    "SEPARATORS",
    "DialogueTokenizer",
    "TextWindow",
    "text_windows",
    "tokenizer_json",
    "truncated_lengths",
]

RESERVED_TURNS = 34
"""The published code keeps room for the special tokens of this many turns, and a window has at most as many."""

SEPARATORS: dict[PlmKind, int] = {"roberta": 2, "bert": 1}
"""Special tokens between two turns."""


@dataclass(frozen=True, slots=True)
class TextWindow:
    """A token sequence for the language model, and where the target utterances stand in it.

    Attributes:
        input_ids: `(T,)`, no padding, no longer than the model's positions.
        spans: By the target's position in the dialogue, its first own token and how many count (at most the model's
            text length; 0 for an empty text).
    """

    input_ids: IntArray
    spans: Mapping[int, tuple[int, int]]


def truncated_lengths(lengths: Sequence[int], budget: int) -> tuple[int, ...]:
    """Return the lengths after dropping one token at a time from the longest (first of equals) down to `budget`.

    Done in closed form: all turns are cut to a common level, and the first few of those by one token more.

    Args:
        lengths: Tokens of each turn.
        budget: How many all may have together.
    """
    if sum(lengths) <= budget:
        return tuple(lengths)
    low, high = 0, max(lengths)  # the level to find is in [low, high): at `high` it is too much
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(min(n, middle) for n in lengths) <= budget else (low, middle)
    surplus = sum(min(n, high) for n in lengths) - budget
    result = []
    for length in lengths:
        cut = length >= high and surplus > 0
        surplus -= cut
        result.append(min(length, high) - cut)
    return tuple(result)


class DialogueTokenizer:
    """Tokenises dialogues for one language model.

    Args:
        json: The text of a `tokenizer.json`, see `tokenizer_json`.
        kind: RoBERTa or BERT.
        max_tokens: The longest sequence the model has positions for (512 in the published models).
        context: `past` reads each utterance in a sequence of its own, with the turns up to it.

    Raises:
        DataError: If the tokenizer is damaged, or `max_tokens` leaves no room for words.
    """

    def __init__(self, json: str, kind: PlmKind, max_tokens: int = 512, context: Context = "dialogue") -> None:
        self._tokenizer = Tokenizer.from_str(plain_tokenizer_json(json, kind))
        self._first, self._separator = (self._tokenizer.token_to_id(token) for token in SPECIAL_TOKENS[kind])
        self._between = SEPARATORS[kind]
        self._max_tokens, self.context = max_tokens, context
        self._budget = max_tokens - RESERVED_TURNS * self._between
        if self._budget < 1:
            needed = RESERVED_TURNS * self._between + 1
            raise DataError(f"a {kind} model with {max_tokens} positions has no room for words, {needed} are needed")

    def encode(self, texts: Sequence[str]) -> TokenizedDialogue:
        """Encode a dialogue as the published code does.

        Args:
            texts: One text a turn.

        Returns:
            The sequence. It may be longer than the model's positions (see the module): use `windows` to be safe.

        Raises:
            DataError: If there is no turn, or a text is no valid Unicode.
        """
        return self._joined(self._tokens(texts))

    def windows(self, texts: Sequence[str], positions: Sequence[int], text_length: int) -> tuple[TextWindow, ...]:
        """Encode what is needed to read the utterances at `positions`.

        Args:
            texts: One text a turn.
            positions: The target turns.
            text_length: How many of an utterance's tokens the model uses (38 in the published models).

        Returns:
            One sequence if the dialogue fits, else one for each distinct window; each target is in exactly one.

        Raises:
            DataError: If there is no turn, or a text is no valid Unicode.
        """
        tokens = self._tokens(texts)
        lengths = [len(ids) for ids in tokens]
        bounds: dict[tuple[int, int], list[int]] = {}
        for position in positions:
            read = lengths[: position + 1] if self.context == "past" else lengths
            bounds.setdefault(self._bounds(read, position), []).append(position)
        return tuple(
            _window(self._joined(tokens[start:end]), start, targets, text_length)
            for (start, end), targets in bounds.items()
        )

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            raise DataError("a dialogue has no turns")
        try:
            return [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        except TypeError as problem:  # what `tokenizers` raises for a text with half a surrogate pair
            raise DataError("a dialogue has a text that is not valid Unicode") from problem

    def _joined(self, tokens: Sequence[list[int]]) -> TokenizedDialogue:
        lengths = truncated_lengths([len(ids) for ids in tokens], self._budget)
        joined = [self._first]
        for ids, length in zip(tokens, lengths, strict=True):
            joined += ids[:length] + [self._separator] * self._between
        end = len(joined) - self._between + 1  # a single separator ends the dialogue
        ends = accumulate(length + self._between for length in lengths)
        starts = tuple(1 + end - length - self._between for end, length in zip(ends, lengths, strict=True))
        return TokenizedDialogue(np.array(joined[:end], np.int64), starts, lengths)

    def _bounds(self, lengths: Sequence[int], position: int) -> tuple[int, int]:
        """Return the first turn and the one after the last of the window around `position`: all turns, if they fit."""
        if self._fits(lengths):
            return 0, len(lengths)
        for size in (RESERVED_TURNS, RESERVED_TURNS - 1):  # the smaller always fits
            start = min(max(position - size // 2, 0), max(len(lengths) - size, 0))
            end = min(start + size, len(lengths))
            if self._fits(lengths[start:end]):
                break
        return start, end

    def _fits(self, lengths: Sequence[int]) -> bool:
        specials = 2 + (len(lengths) - 1) * self._between
        return min(sum(lengths), self._budget) + specials <= self._max_tokens


def text_windows(dialogue: Dialogue, tokenizer: DialogueTokenizer | None, text_length: int) -> tuple[TextWindow, ...]:
    """Return the sequences in which all of a dialogue's utterances are read, each utterance in exactly one.

    Args:
        dialogue: With texts, or with tokens that are then used as they are.
        tokenizer: May be None if the dialogue has tokens.
        text_length: How many of an utterance's tokens the model uses.

    Raises:
        DataError: If the dialogue has neither texts nor tokens, has texts and there is no tokenizer, or an utterance's
            position is outside of it or an utterance has nothing the model could read.
    """
    positions = [utterance.position for utterance in dialogue.utterances]
    turns = len(dialogue.tokens.lengths if dialogue.tokens else dialogue.texts or ())
    if not all(0 <= position < turns for position in positions):
        raise DataError(f"dialogue {dialogue.id} has text for {turns} turns and an utterance at {max(positions)}")
    if dialogue.tokens is not None:
        if tokenizer is not None and tokenizer.context == "past":
            raise DataError(
                f"dialogue {dialogue.id} comes tokenised whole, and this model reads no later turns",
                why="Its turns were shortened in view of later ones.",
                fix="Use the data set with its texts.",
            )
        windows: tuple[TextWindow, ...] = (_window(dialogue.tokens, 0, positions, text_length),)
    elif tokenizer is None or dialogue.texts is None:
        raise DataError(f"dialogue {dialogue.id} has no tokens, and there is no tokenizer for its texts")
    else:
        windows = tokenizer.windows(dialogue.texts, positions, text_length)
    lengths = {position: length for window in windows for position, (_, length) in window.spans.items()}
    for utterance in dialogue.utterances:
        check_says_something(utterance, lengths[utterance.position] > 0, f"dialogue {dialogue.id}")
    return windows


def _window(tokens: TokenizedDialogue, first: int, targets: Sequence[int], text_length: int) -> TextWindow:
    spans = {
        target: (tokens.starts[target - first], min(tokens.lengths[target - first], text_length)) for target in targets
    }
    return TextWindow(tokens.input_ids, spans)
