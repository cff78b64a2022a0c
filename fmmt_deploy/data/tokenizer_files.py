"""One `tokenizer.json` from whatever tokenizer files a published language model comes with.

Sources: `tokenizers`' own format; GPT-2's byte-level BPE (`vocab.json`, `merges.txt`) as RoBERTa uses it, without a
leading space; BERT's WordPiece (`vocab.txt`).
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.errors import DataError

__all__ = ["SPECIAL_TOKENS", "plain_tokenizer_json", "tokenizer_json"]

SPECIAL_TOKENS: dict[PlmKind, tuple[str, str]] = {"roberta": ("<s>", "</s>"), "bert": ("[CLS]", "[SEP]")}
"""What opens a dialogue, and what separates and ends its turns."""

_UNKNOWN: dict[PlmKind, str] = {"roberta": "<unk>", "bert": "[UNK]"}
_MAX_FILE_BYTES = 64 << 20
_FIX = "Give the published model's folder, with its tokenizer files."


def tokenizer_json(plm_dir: Path, kind: PlmKind) -> str:
    """Build the text of a `tokenizer.json` in which special tokens written in a text are plain text.

    Args:
        plm_dir: Holds `tokenizer.json`, or `vocab.json` and `merges.txt` (RoBERTa), or `vocab.txt` (BERT, with
            `tokenizer_config.json` if its casedness is not to be read off the vocabulary).
        kind: Which of the two.

    Raises:
        DataError: If the files are missing or damaged, or lack the kind's special tokens.
    """
    published = plm_dir / "tokenizer.json"
    if published.is_file():
        return plain_tokenizer_json(_text(published), kind, str(published))
    built = _roberta(plm_dir) if kind == "roberta" else _bert(plm_dir)
    return plain_tokenizer_json(built.to_str(), kind, str(plm_dir))


def plain_tokenizer_json(text: str, kind: PlmKind, source: str = "tokenizer.json") -> str:
    """Check a `tokenizer.json` and take out its added tokens, so that no text can turn into a control token.

    Args:
        text: The JSON.
        kind: Whose special tokens its vocabulary must have.
        source: Where it came from, for messages.

    Raises:
        DataError: If it is damaged, or lacks the special tokens.
    """
    try:
        parts = json.loads(text)
        parts |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    except Exception as problem:  # `tokenizers` raises plain Exception for all that it can't parse
        raise DataError(f"{source} is not a tokenizer", why=str(problem)[:300], fix=_FIX, path=source) from problem
    absent = [token for token in SPECIAL_TOKENS[kind] if tokenizer.token_to_id(token) is None]
    if absent:
        raise DataError(f"{source} has no token {absent[0]}, which {kind} models need", fix=_FIX, path=source)
    return str(tokenizer.to_str())


def _roberta(plm_dir: Path) -> Tokenizer:
    vocabulary_file, merges_file = plm_dir / "vocab.json", plm_dir / "merges.txt"
    try:
        vocabulary = json.loads(_text(vocabulary_file))
        lines = _text(merges_file).split("\n")
        merges = [_merge(line) for line in lines if line.strip() and not line.startswith("#version")]
        unknown = _UNKNOWN["roberta"] if _UNKNOWN["roberta"] in vocabulary else None
        tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token=unknown))
    except DataError:
        raise
    except Exception as problem:  # as above
        what = f"{vocabulary_file} and merges.txt are not a byte-level BPE"
        raise DataError(what, why=str(problem)[:300], fix=_FIX, path=vocabulary_file) from problem
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


def _bert(plm_dir: Path) -> Tokenizer:
    words = [line.rstrip("\r") for line in _text(plm_dir / "vocab.txt").split("\n")]
    words = words[:-1] if words[-1] == "" else words
    settings = _bert_settings(plm_dir / "tokenizer_config.json")
    cased = any(character.isupper() for word in words if not word.startswith("[") for character in word)
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_UNKNOWN["bert"], max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", not cased),
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    if _UNKNOWN["bert"] not in vocabulary:
        raise DataError(f"{plm_dir / 'vocab.txt'} has no token {_UNKNOWN['bert']}", fix=_FIX, path=plm_dir)
    return tokenizer


def _merge(line: str) -> tuple[str, str]:
    left, right = line.rstrip("\r").split(" ")
    return left, right


def _bert_settings(path: Path) -> dict[str, bool]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(_text(path))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path} is not JSON", why=str(problem)[:300], fix=_FIX, path=path) from problem
    if not isinstance(settings, dict):
        raise DataError(f"{path} is not a JSON object", fix=_FIX, path=path)
    named = {name: settings.get(name) for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")}
    wrong = [name for name, setting in named.items() if setting is not None and not isinstance(setting, bool)]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} is neither true nor false", fix=_FIX, path=path)
    return {name: setting for name, setting in named.items() if isinstance(setting, bool)}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB, no tokenizer is", fix=_FIX, path=path)
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as problem:
        raise DataError(f"{path} does not exist", fix=_FIX, path=path) from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} can't be read as text", why=str(problem)[:300], fix=_FIX, path=path) from problem
