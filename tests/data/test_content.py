"""The same utterance is found again under any name, and another one is not."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.data.content import (
    DIGEST_BYTES,
    HASHED_FACES,
    content_of,
    digests_from_text,
    distinctive,
    sharing,
    text_from_digests,
)
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, TokenizedDialogue, Utterance

RNG = np.random.default_rng(0)
AUDIO = RNG.standard_normal((3, 4)).astype(np.float32)
VISION = RNG.standard_normal((2, 5)).astype(np.float32)
TEXTS = ("Did you see the new neighbours?", "I did, they have a piano.", "Lovely, I hope that they can play it.")


def padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((length - len(rows), rows.shape[1]), np.float32)])


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("faces")
    paths = [folder / f"{index}.png" for index in range(HASHED_FACES + 2)]
    for path in paths:
        assert cv2.imwrite(str(path), RNG.integers(0, 256, (24, 24, 3), np.uint8))
    return paths


def utterance(faces: Sequence[Path] = (), **changes: object) -> Utterance:
    sound, sight = padded(AUDIO, 6), padded(VISION, 4)
    return replace(Utterance("u", 1, 2, tuple(faces), sound, 3, sight, 2), **changes)  # type: ignore[arg-type]


def data(*utterances: Utterance, texts: tuple[str, ...] | None = TEXTS, name: str = "d") -> DataSet:
    dialogues = tuple(Dialogue(f"{name}{n}", texts, None, (u,)) for n, u in enumerate(utterances))
    return DataSet("memory", dialogues, tuple(u.id for u in utterances))


def digests(dataset: DataSet) -> frozenset[bytes]:
    return frozenset().union(*(content.digests for content in content_of(dataset)))


def test_a_digest_is_blake2b_of_the_real_rows() -> None:
    rows = AUDIO.astype("<f4").tobytes()
    by_hand = hashlib.blake2b(len(rows).to_bytes(8, "little") + rows, digest_size=DIGEST_BYTES, person=b"audio")
    assert digests(data(utterance(vision_length=0), texts=None)) == {by_hand.digest()}


def test_name_label_padding_and_place_do_not_matter(faces: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "other.jpg"
    copy.write_bytes(faces[0].read_bytes())
    other = utterance([copy], id="z", label=None, audio=padded(AUDIO, 9), vision=VISION.astype(np.float64))
    texts = tuple(f" {text.upper()}\n" for text in TEXTS)
    found = digests(data(utterance(faces[:1])))
    assert len(found) == 4
    assert digests(data(other, texts=texts, name="z")) == found


@pytest.mark.parametrize(
    "change",
    [
        lambda u: replace(u, audio=u.audio + np.float32(1e-6)),
        lambda u: replace(u, audio_length=2),
        lambda u: replace(u, vision=u.vision * 2),
        lambda u: replace(u, faces=u.faces[1:]),
    ],
)
def test_what_is_still_the_same_is_found(faces: list[Path], change: Callable[[Utterance], Utterance]) -> None:
    one = utterance(faces[:1])
    assert len(digests(data(one)) - digests(data(change(one)))) == 1
    assert sharing(content_of(data(change(one), texts=None)), digests(data(one)))


def test_words_count_with_the_turns_around_them() -> None:
    silent = [utterance(position=p, audio_length=0, vision_length=0) for p in range(4)]
    texts = (*TEXTS, "They can't.")
    found = [digests(data(u, texts=texts)) for u in silent]
    assert [len(each) for each in found] == [1] * 4
    assert found[0] == found[1] != found[2] == found[3]
    assert found[0] == digests(data(silent[0], texts=(*TEXTS, "They can, and all night long.")))


@pytest.mark.parametrize("texts", [("Okay.",), ("Hey!", "Hey.", "How are you?"), ("",), None])
def test_what_everybody_says_is_no_evidence(texts: tuple[str, ...] | None) -> None:
    assert not digests(data(utterance(position=0, audio_length=0, vision_length=0), texts=texts))


def test_features_without_any_change_and_blank_images_are_no_evidence(tmp_path: Path) -> None:
    blank = tmp_path / "blank.jpg"
    assert cv2.imwrite(str(blank), np.full((300, 300, 3), 90, np.uint8))
    flat = utterance([blank], audio=np.ones((6, 4), np.float32), vision=np.zeros((4, 5), np.float32))
    assert blank.stat().st_size > 2000
    assert not digests(data(flat, texts=None))


def test_tokens_stand_for_words() -> None:
    def tokens(lengths: tuple[int, ...], first: int = 7) -> DataSet:
        starts = tuple(1 + sum(lengths[:n]) + 2 * n for n in range(len(lengths)))
        ids = np.arange(first, first + starts[-1] + lengths[-1] + 1)
        dialogue = Dialogue("d", None, TokenizedDialogue(ids, starts, lengths), ())
        return DataSet("memory", (replace(dialogue, utterances=(utterance(audio_length=0, vision_length=0),)),), ("u",))

    assert len(digests(tokens((6, 5, 5)))) == 1
    assert digests(tokens((6, 5, 5))) != digests(tokens((6, 5, 5), first=8))
    assert digests(tokens((6, 5, 5))) != digests(tokens((5, 6, 5)))
    assert not digests(tokens((5, 5, 5)))


def test_only_the_first_faces_are_read(faces: list[Path], tmp_path: Path) -> None:
    few, more = faces[:HASHED_FACES], [*faces[:HASHED_FACES], tmp_path / "gone.jpg"]
    assert digests(data(utterance(few))) == digests(data(utterance(more)))
    with pytest.raises(DataError, match=r"gone\.jpg can't be read"):
        content_of(data(utterance(more[::-1])))


def test_what_several_dialogues_have_is_not_distinctive(faces: list[Path]) -> None:
    first, second = utterance(faces[:2]), utterance(faces[1:3], audio=padded(-AUDIO, 6), vision_length=1)
    common = digests(data(utterance(faces[1:2], audio_length=0, vision_length=0)))
    contents = content_of(data(first, second))
    assert len(common) == 2  # the words, and one face
    assert distinctive(contents) == digests(data(first, second)) - common
    within = DataSet("memory", (Dialogue("d", TEXTS, None, (first, replace(first, id="v"))),), ("u", "v"))
    assert distinctive(content_of(within)) == digests(data(first))


@given(st.frozensets(st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)))
def test_digests_as_text_and_back(found: frozenset[bytes]) -> None:
    assert digests_from_text(text_from_digests(found)) == found


@pytest.mark.parametrize("text", ["AAAAAAAAAA", "é", "AAAA====", "AAAAAAAAAAA"])
def test_damaged_digests_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"digest|ASCII"):
        digests_from_text(text)
