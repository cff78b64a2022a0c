"""Makes the demo's tokenizer files: a small vocabulary in the published formats of RoBERTa and BERT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

from fmmt_deploy.architecture import PlmKind

__all__ = ["dialogue_ids", "write_tokenizer"]

Tokenizer: TypeAlias = Any  # the library has no types

VOCABULARY = 420
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(directory: Path, kind: PlmKind, texts: Iterable[str]) -> Tokenizer:
    """Learns a vocabulary from `texts` and writes `vocab.json` and `merges.txt`, or `vocab.txt`.

    Returns:
        The tokenizer, to make sequences with.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if kind == "roberta":
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(texts, VOCABULARY, special_tokens=ROBERTA_SPECIAL, show_progress=False)
        bpe.save_model(str(directory))
        return bpe
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("\n".join(_word_pieces(texts)) + "\n", encoding="utf-8")
    return BertWordPieceTokenizer(str(vocabulary), lowercase=False)


def _word_pieces(texts: Iterable[str]) -> list[str]:
    """All characters, as starts and as continuations, and every second word: so that some words come in pieces.

    The library's own trainer breaks ties at random, and the demo is to be the same every time.
    """
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts))))
    characters = sorted(set("".join(words)))
    longer = [word for word in words[::2] if len(word) > 1]
    return [*BERT_SPECIAL, *characters, *(f"##{character}" for character in characters), *longer]


def dialogue_ids(tokenizer: Tokenizer, kind: PlmKind, texts: list[str]) -> tuple[list[int], list[int], list[int]]:
    """Joins a dialogue's texts as published; the demo's are short enough to need no cutting.

    Returns:
        Token ids, and for each text where its own begin and how many they are.
    """
    first, between = (["<s>"], ["</s>", "</s>"]) if kind == "roberta" else (["[CLS]"], ["[SEP]"])
    ids = [tokenizer.token_to_id(token) for token in first]
    starts, lengths = [], []
    for text in texts:
        own = tokenizer.encode(text, add_special_tokens=False).ids
        starts.append(len(ids))
        lengths.append(len(own))
        ids += own + [tokenizer.token_to_id(token) for token in between]
    return ids, starts, lengths
