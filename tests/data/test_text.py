"""Tokenising against the published code's ids, and against a literal reading of its rules."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.data.text import DialogueTokenizer, TextWindow, text_windows, tokenizer_json, truncated_lengths
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import Dialogue, TokenizedDialogue, Utterance
from tests.golden import GOLDEN

KINDS: tuple[PlmKind, ...] = ("roberta", "bert")
JSON = {kind: tokenizer_json(GOLDEN / f"{kind}/pretrained_model/{kind}-large", kind) for kind in KINDS}
TOKENIZERS = {kind: DialogueTokenizer(JSON[kind], kind, 512) for kind in KINDS}
SPECIALS = {"roberta": (0, [2, 2]), "bert": (2, [3])}
ONE_TOKEN = {"roberta": "!", "bert": "!"}
WORDS = {"roberta": "!?", "bert": "! ? "}


def golden_texts(kind: PlmKind) -> list[list[str]]:
    texts = json.loads((GOLDEN / kind / "meld/test_text.json").read_text("utf-8"))
    dialogues: dict[str, list[str]] = {}
    for name, value in texts.items():
        dialogues.setdefault(name.partition("_")[0], []).append(value["txt"][0])
    return list(dialogues.values())


def literally_truncated(lengths: list[int], budget: int) -> tuple[int, ...]:
    """The rule as the reference states it: one token at a time from the longest, the first of equals."""
    left = list(lengths)
    while sum(left) > budget:
        left[left.index(max(left))] -= 1
    return tuple(left)


def literally_joined(kind: PlmKind, tokens: list[list[int]]) -> tuple[list[int], list[tuple[int, int]]]:
    first, between = SPECIALS[kind]
    lengths = literally_truncated([len(ids) for ids in tokens], 512 - 34 * len(between))
    ids, spans = [first], []
    for own, length in zip(tokens, lengths, strict=True):
        spans.append((len(ids), length))
        ids += own[:length] + between
    return (ids[:-1] if kind == "roberta" else ids), spans


def own_tokens(kind: PlmKind, text: str) -> list[int]:
    encoded = TOKENIZERS[kind].encode([text])
    return encoded.input_ids[1:-1].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_spans_are_the_published_ones(kind: PlmKind) -> None:
    expected = np.load(GOLDEN / kind / "expected.npz")
    utterance = 0
    for row, texts in enumerate(golden_texts(kind)):
        count = int(expected["input_mask"][row].sum())
        encoded = TOKENIZERS[kind].encode(texts)
        np.testing.assert_array_equal(encoded.input_ids, expected["input_ids"][row, :count])
        ends = [start + length for start, length in zip(encoded.starts, encoded.lengths, strict=True)]
        assert ends == np.flatnonzero(expected["sep_mask"][row]).tolist()
        (window,) = TOKENIZERS[kind].windows(texts, range(len(texts)), 38)
        np.testing.assert_array_equal(window.input_ids, encoded.input_ids)
        for position in range(len(texts)):
            assert window.spans[position] == (encoded.starts[position], expected["text_mask"][utterance].sum())
            utterance += 1
    assert utterance == len(expected["text_mask"])


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(0, 500))
@settings(max_examples=60, deadline=None)
def test_truncation_is_the_literal_loop(lengths: list[int], budget: int) -> None:
    assert truncated_lengths(lengths, budget) == literally_truncated(lengths, budget)


def test_truncation_is_fast_for_silly_inputs() -> None:
    cut = truncated_lengths([10**9, 5, 10**9, 10**9], 444)
    assert cut == (146, 5, 146, 147)


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 40), min_size=1, max_size=33))
@settings(max_examples=60, deadline=None)
def test_dialogues_that_fit_are_joined_literally(kind: PlmKind, lengths: list[int]) -> None:
    texts = [" ".join([ONE_TOKEN[kind]] * n) if kind == "bert" else "é" * n for n in lengths]
    ids, spans = literally_joined(kind, [own_tokens(kind, text) for text in texts])
    encoded = TOKENIZERS[kind].encode(texts)
    assert encoded.input_ids.tolist() == ids
    assert list(zip(encoded.starts, encoded.lengths, strict=True)) == spans
    assert [w.input_ids.tolist() for w in TOKENIZERS[kind].windows(texts, [0, len(texts) - 1], 38)] == [ids]


def literal_window(
    kind: PlmKind, tokens: list[list[int]], target: int
) -> tuple[tuple[int, int], list[int], tuple[int, int]]:
    """First and number of turns, ids and the target's span, of the window that the module's text describes."""
    for size in (len(tokens), 34, 33):
        first = max(0, min(target - size // 2, len(tokens) - size))
        ids, spans = literally_joined(kind, tokens[first : first + size])
        if len(ids) <= 512:
            return (first, size), ids, spans[target - first]
    raise AssertionError


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 30), min_size=30, max_size=70), st.integers(1, 38))
@settings(max_examples=40, deadline=None)
def test_windows_of_long_dialogues(kind: PlmKind, lengths: list[int], text_length: int) -> None:
    texts = [" ".join([ONE_TOKEN[kind]] * n) if kind == "bert" else "é" * n for n in lengths]
    tokens = [own_tokens(kind, text) for text in texts]
    windows = TOKENIZERS[kind].windows(texts, range(len(texts)), text_length)
    found = {target: (window, span) for window in windows for target, span in window.spans.items()}
    assert sorted(found) == list(range(len(texts)))
    distinct = set()
    for target, (window, span) in found.items():
        turns, ids, (start, length) = literal_window(kind, tokens, target)
        assert window.input_ids.tolist() == ids
        assert span == (start, min(length, text_length))
        distinct.add(turns)
    assert len(windows) == len(distinct)


@pytest.mark.parametrize("kind", KINDS)
def test_sixty_full_turns_are_windowed_and_sixty_short_ones_are_not(kind: PlmKind) -> None:
    long = TOKENIZERS[kind].windows(["hello there you " * 4] * 60, range(60), 38)
    assert len(long) == (27 if kind == "roberta" else 28)
    assert max(len(window.input_ids) for window in long) == 512
    short = TOKENIZERS[kind].windows(["!"] * 60, range(60), 38)
    assert len(short) == 1


def test_the_bert_corner_of_34_full_turns_takes_33() -> None:
    texts = ["! " * 20] * 34
    assert len(TOKENIZERS["bert"].encode(texts).input_ids) == 513
    windows = TOKENIZERS["bert"].windows(texts, range(34), 38)
    assert [len(window.input_ids) for window in windows] == [512, 512]
    assert len(TOKENIZERS["roberta"].windows(["é" * 20] * 34, range(34), 38)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_plain_text(kind: PlmKind) -> None:
    for text in ("</s>", "<s>", "<pad>", "<mask>", "[SEP]", "[CLS]", "[PAD]"):
        own = own_tokens(kind, text)
        assert len(own) > 1
        assert not {0, 2, 4} & set(own) if kind == "roberta" else not {0, 2, 3, 4} & set(own)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_has_no_tokens(kind: PlmKind) -> None:
    (window,) = TOKENIZERS[kind].windows(["", "hi", ""], range(3), 38)
    assert [window.spans[position][1] for position in (0, 2)] == [0, 0]
    assert window.spans[1][1] > 0


def dialogue(texts: tuple[str, ...] | None, tokens: TokenizedDialogue | None = None, **changes: int) -> Dialogue:
    fields = {"audio_length": 1, "vision_length": 0, "position": 1} | changes
    utterance = Utterance("u1", label=None, faces=(), audio=None, vision=None, **fields)
    return Dialogue("d", texts, tokens, (utterance,))


def test_a_dialogue_that_came_tokenised_needs_no_tokenizer() -> None:
    texts = ("Hey!", "You know what, fine.")
    expected = text_windows(dialogue(texts), TOKENIZERS["bert"], 2)
    found = text_windows(dialogue(None, TOKENIZERS["bert"].encode(texts)), None, 2)
    assert isinstance(found[0], TextWindow)
    assert found[0].spans == expected[0].spans
    assert found[0].spans[1][1] == 2
    np.testing.assert_array_equal(found[0].input_ids, expected[0].input_ids)


def test_a_dialogue_that_came_tokenised_is_not_for_a_model_of_past_turns() -> None:
    past = DialogueTokenizer(JSON["bert"], "bert", context="past")
    with pytest.raises(DataError, match="comes tokenised whole") as refused:
        text_windows(dialogue(None, past.encode(("Hey!", "You know what, fine."))), past, 38)
    assert "with its texts" in refused.value.fix


def test_dialogues_without_what_is_needed_are_refused() -> None:
    tokenizer = TOKENIZERS["bert"]
    with pytest.raises(DataError, match="no tokenizer"):
        text_windows(dialogue(("a", "b")), None, 38)
    with pytest.raises(DataError, match="text for 1 turns"):
        text_windows(dialogue(("a",)), tokenizer, 38)
    with pytest.raises(DataError, match="text for 0 turns"):
        text_windows(dialogue(None), tokenizer, 38)
    with pytest.raises(DataError, match="no words, no audio, no face"):
        text_windows(dialogue(("a", " "), audio_length=0), tokenizer, 38)
    with pytest.raises(DataError, match="no turns"):
        tokenizer.encode([])
    with pytest.raises(DataError, match="not valid Unicode"):
        tokenizer.encode(["\ud800"])
    with pytest.raises(DataError, match="35 are needed"):
        DialogueTokenizer(JSON["bert"], "bert", 34)


def test_a_tokenizer_json_wins_and_loses_its_added_tokens(tmp_path: Path) -> None:
    parts = json.loads(JSON["roberta"])
    parts["added_tokens"] = [
        {"id": 2, "content": "</s>", "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts))
    (tmp_path / "vocab.json").write_text("not read")
    assert json.loads(tokenizer_json(tmp_path, "roberta")) == json.loads(JSON["roberta"])


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hey", "Hey", "##s"]


@pytest.mark.parametrize(
    ("words", "config", "expected"),
    [
        (VOCABULARY, None, [6]),
        (VOCABULARY, {"do_lower_case": True}, [5]),
        (VOCABULARY[:6], None, [5]),
        (VOCABULARY[:6], {"do_lower_case": False}, [1]),
    ],
)
def test_casedness_of_bert(tmp_path: Path, words: list[str], config: object, expected: list[int]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = DialogueTokenizer(tokenizer_json(tmp_path, "bert"), "bert")
    assert tokenizer.encode(["Hey"]).input_ids[1:-1].tolist() == expected


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("bert", {}, "vocab.txt does not exist"),
        ("roberta", {}, "vocab.json does not exist"),
        ("roberta", {"vocab.json": "{}"}, "merges.txt does not exist"),
        ("roberta", {"vocab.json": "{}", "merges.txt": "a b c"}, "not a byte-level BPE"),
        ("roberta", {"vocab.json": "[", "merges.txt": ""}, "not a byte-level BPE"),
        ("roberta", {"vocab.json": '{"<s>": 0}', "merges.txt": ""}, "has no token </s>"),
        ("bert", {"vocab.txt": "hey\n"}, r"no token \[UNK\]"),
        ("bert", {"vocab.txt": "[UNK]\n[SEP]\n"}, r"no token \[CLS\]"),
        ("bert", {"vocab.txt": "x", "tokenizer_config.json": "["}, "is not JSON"),
        ("bert", {"vocab.txt": "x", "tokenizer_config.json": "[]"}, "not a JSON object"),
        ("bert", {"vocab.txt": "x", "tokenizer_config.json": '{"do_lower_case": 3}'}, "neither true nor false"),
        ("bert", {"tokenizer.json": "{}"}, "is not a tokenizer"),
        ("bert", {"tokenizer.json": "[1]"}, "is not a tokenizer"),
        ("bert", {"tokenizer.json": "\x00"}, "is not a tokenizer"),
    ],
)
def test_damaged_tokenizer_files(tmp_path: Path, kind: PlmKind, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        tokenizer_json(tmp_path, kind)
