"""Which dialogues are encoded together, and which utterances are fused together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.data.text import DialogueTokenizer, TextWindow, text_windows
from fmmt_deploy.types import DataSet, Dialogue, IntArray, Utterance

__all__ = ["Group", "Member", "padded_tokens", "plan_groups"]


@dataclass(frozen=True, slots=True)
class Member:
    """An utterance, and where its own words are.

    Attributes:
        utterance: The utterance.
        row: Which of the group's windows.
        start: Its first token there.
        length: Its tokens, at most the model's text length.
    """

    utterance: Utterance
    row: int = 0
    start: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Text windows that are encoded in one run of `plm`, and the utterances that read from them."""

    windows: tuple[IntArray, ...]
    members: tuple[Member, ...]


def plan_groups(
    dataset: DataSet, tokenizer: DialogueTokenizer | None, text_length: int, batch_size: int
) -> tuple[Group, ...]:
    """Puts dialogues of like length together, so that little is padded; the longest come first.

    Every dialogue is encoded once, whatever the number of its utterances.

    Args:
        dataset: The dialogues.
        tokenizer: Their tokenizer, or None where they come tokenised.
        text_length: The model's text length.
        batch_size: A group has at most so many utterances, unless one window alone has more.
    """
    units = [unit for dialogue in dataset.dialogues for unit in _units(dialogue, tokenizer, text_length)]
    units.sort(key=lambda unit: -len(unit[0].input_ids))
    groups: list[Group] = []
    pending: list[tuple[TextWindow, tuple[Utterance, ...]]] = []
    for unit in units:
        if pending and sum(len(u) for _, u in (*pending, unit)) > batch_size:
            groups.append(_group(pending))
            pending = []
        pending.append(unit)
    return (*groups, _group(pending)) if pending else tuple(groups)


def padded_tokens(windows: Iterable[IntArray], multiple: int = 1, most: int | None = None) -> tuple[IntArray, IntArray]:
    """Ids (D, T), padded with 0, and their mask.

    Args:
        windows: The tokens of each.
        multiple: T is the longest's length, or the next multiple of this.
        most: No window is padded beyond this; default no limit.
    """
    rows = list(windows)
    needed = max(len(row) for row in rows)
    longest = -(-needed // multiple) * multiple
    longest = longest if most is None else max(needed, min(longest, most))
    ids = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
    lengths = np.array([[len(row)] for row in rows])
    return ids, (np.arange(longest) < lengths).astype(np.int64)


def _units(
    dialogue: Dialogue, tokenizer: DialogueTokenizer | None, text_length: int
) -> list[tuple[TextWindow, tuple[Utterance, ...]]]:
    windows = text_windows(dialogue, tokenizer, text_length)
    return [(w, tuple(u for u in dialogue.utterances if u.position in w.spans)) for w in windows]


def _group(units: list[tuple[TextWindow, tuple[Utterance, ...]]]) -> Group:
    members = [
        Member(utterance, row, *window.spans[utterance.position])
        for row, (window, utterances) in enumerate(units)
        for utterance in utterances
    ]
    return Group(tuple(window.input_ids for window, _ in units), tuple(members))
