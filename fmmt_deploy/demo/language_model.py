"""Makes the demo's language model folder: configuration and vocabulary in the published formats, and no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.demo.phrases import all_phrases

__all__ = ["write_language_model"]

VOCABULARY = 600
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


CONFIG = {
    "architectures": [],
    "hidden_act": "gelu",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "position_embedding_type": "absolute",
}
"""What both language models have; with transformers' names."""

OWN: dict[PlmKind, dict[str, object]] = {
    "roberta": {"max_position_embeddings": 514, "layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": 1},
    "bert": {"max_position_embeddings": 512, "layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0},
}


def write_language_model(directory: Path, kind: PlmKind) -> None:
    """Writes `config.json`, and `vocab.json` and `merges.txt`, or `vocab.txt`: always the same."""
    directory.mkdir(parents=True, exist_ok=True)
    if kind == "roberta":
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(all_phrases(), VOCABULARY, special_tokens=ROBERTA_SPECIAL, show_progress=False)
        bpe.save_model(str(directory))
        tokens = bpe.get_vocab_size()
    else:
        words = _word_pieces(all_phrases())
        (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        tokens = len(words)
    config = {"model_type": kind, "vocab_size": tokens, **CONFIG, **OWN[kind]}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _word_pieces(texts: Iterable[str]) -> list[str]:
    """All characters, as starts and as continuations, and every second word: so that some words come in pieces.

    The library's own trainer breaks ties at random, and the demo is to be the same every time.
    """
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts))))
    characters = sorted(set("".join(words)))
    longer = [word for word in words[::2] if len(word) > 1]
    return [*BERT_SPECIAL, *characters, *(f"##{character}" for character in characters), *longer]
