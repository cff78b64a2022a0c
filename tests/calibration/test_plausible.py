"""Made-up data are told from real ones, and real ones are never refused."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from fmmt_deploy.calibration.plausible import LEAST_CORRELATION, check_plausible, neighbour_correlation, repetition
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.errors import DataError
from fmmt_deploy.export.samples import sample_faces
from fmmt_deploy.types import DataSet, TokenizedDialogue
from tests.calibration.talk import ARCHITECTURE, Talk, of_dialogues, tokenizer
from tests.golden import GOLDEN

RNG = np.random.default_rng(5)


def with_faces(dataset: DataSet, path: Path) -> DataSet:
    """The same, every face replaced."""
    return of_dialogues(
        tuple(
            replace(d, utterances=tuple(replace(u, faces=(path,) * len(u.faces)) for u in d.utterances))
            for d in dataset.dialogues
        )
    )


def with_tokens(dataset: DataSet, size: int, vocabulary: int) -> DataSet:
    """Words replaced by tokens drawn evenly, `size` a turn."""

    def drawn(turns: int) -> TokenizedDialogue:
        starts = tuple(1 + n * (size + 2) for n in range(turns))
        return TokenizedDialogue(RNG.integers(5, vocabulary, 1 + turns * (size + 2)), starts, (size,) * turns)

    return of_dialogues(tuple(replace(d, texts=None, tokens=drawn(len(d.texts or ()))) for d in dataset.dialogues))


def test_correlation_is_pearsons_of_neighbours() -> None:
    image = cv2.GaussianBlur(RNG.integers(0, 256, (90, 120, 3), np.uint8), (0, 0), 1.2)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    across = np.corrcoef(grey[:, 1:].ravel(), grey[:, :-1].ravel())[0, 1]
    along = np.corrcoef(grey[1:].ravel(), grey[:-1].ravel())[0, 1]
    assert neighbour_correlation(image) == pytest.approx((across + along) / 2, abs=0.01)
    assert np.isnan(neighbour_correlation(np.full((9, 9, 3), 7, np.uint8)))


def test_noise_has_none_and_faces_much(talk: Talk) -> None:
    assert abs(neighbour_correlation(RNG.integers(0, 256, (160, 160, 3), np.uint8))) < 0.05
    drawn = [cv2.imread(str(path)) for d in talk.train.dialogues for u in d.utterances for path in u.faces]
    golden = [cv2.imread(str(path)) for path in sorted((GOLDEN / "roberta" / "faces").iterdir())]
    grained = list(sample_faces(RNG, 8)["faces"])
    assert min(map(neighbour_correlation, [*drawn, *golden, *grained])) > 2 * LEAST_CORRELATION


def test_photographs_have_much_also_when_dark_and_grainy() -> None:
    """Two that scikit-learn comes with; at a tenth of their light, with a sensor's noise on top, and shrunk."""
    for photograph in load_sample_images().images:
        assert neighbour_correlation(photograph) > 0.9
        dark = photograph / 10 + RNG.normal(0, 3, photograph.shape)
        assert neighbour_correlation(dark.clip(0, 255).astype(np.uint8)) > 2 * LEAST_CORRELATION
        assert neighbour_correlation(cv2.resize(photograph, (48, 48), interpolation=cv2.INTER_AREA)) > 0.6


def test_repetition_counts_equal_pairs() -> None:
    tokens = RNG.integers(0, 30, 200)
    equal = sum(int(tokens[i] == tokens[j]) for i in range(200) for j in range(200) if i != j)
    assert repetition(tokens) == pytest.approx(equal / (200 * 199) * len(set(tokens.tolist())))


@pytest.mark.parametrize("vocabulary", [50, 420, 5000, 50000])
def test_tokens_drawn_evenly_do_not_repeat_like_words(vocabulary: int) -> None:
    assert all(repetition(RNG.integers(0, vocabulary, count)) < 1.15 for count in (1000, 3000, 20000))


def test_english_repeats(talk: Talk) -> None:
    """This project's own README; of the demo's talk all that is said."""
    words = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("<!--")[0].lower().split()
    said = [word for d in talk.train.dialogues for text in d.texts or () for word in text.split()]
    for each in (words, said):
        assert repetition(np.unique(each, return_inverse=True)[1]) > 1.8


def test_real_data_pass(talk: Talk) -> None:
    for dataset in (talk.train, talk.test, read_data(GOLDEN / "roberta", "test", ARCHITECTURE)):
        check_plausible(dataset, ARCHITECTURE, tokenizer())


@pytest.mark.parametrize(("ending", "options"), [("png", []), ("jpg", []), ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 75])])
def test_faces_of_noise_are_refused(talk: Talk, tmp_path: Path, ending: str, options: list[int]) -> None:
    path = tmp_path / f"noise.{ending}"
    assert cv2.imwrite(str(path), RNG.integers(0, 256, (160, 160, 3), np.uint8), options)
    with pytest.raises(DataError, match=r"32 of 32 faces looked at are white noise, such as .*noise\."):
        check_plausible(with_faces(talk.train, path), ARCHITECTURE, tokenizer())


def test_faces_of_one_colour_are_refused(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "blank.png"
    assert cv2.imwrite(str(path), np.full((160, 160, 3), 128, np.uint8))
    with pytest.raises(DataError, match=r"32 of 32 faces looked at are of one colour"):
        check_plausible(with_faces(talk.train, path), ARCHITECTURE, tokenizer())


def test_a_few_bad_faces_are_no_reason(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "blank.png"
    assert cv2.imwrite(str(path), np.full((160, 160, 3), 128, np.uint8))
    third = with_faces(of_dialogues(talk.train.dialogues[::3]), path).dialogues
    rest = tuple(d for n, d in enumerate(talk.train.dialogues) if n % 3)
    check_plausible(of_dialogues(third + rest), ARCHITECTURE, tokenizer())


@pytest.mark.parametrize("kind", ["audio", "vision"])
def test_features_that_never_change_are_refused(talk: Talk, kind: str) -> None:
    rows = {"audio": (14, 24), "vision": (6, 16)}[kind]
    row = np.arange(rows[1], dtype=np.float32)
    still = of_dialogues(
        tuple(
            replace(d, utterances=tuple(replace(u, **{kind: np.tile(row, (rows[0], 1))}) for u in d.utterances))
            for d in talk.train.dialogues
        )
    )
    with pytest.raises(DataError, match=rf"the {kind} features are the same in all \d+ rows"):
        check_plausible(still, ARCHITECTURE, tokenizer())


@pytest.mark.parametrize("vocabulary", [420, 50000])
def test_random_tokens_are_refused(talk: Talk, vocabulary: int) -> None:
    with pytest.raises(DataError, match=r"tokens of .* utterances are drawn at random"):
        check_plausible(with_tokens(talk.train, 30, vocabulary), ARCHITECTURE, None)


def test_few_tokens_are_not_judged(talk: Talk) -> None:
    check_plausible(with_tokens(talk.train, 4, 50000), ARCHITECTURE, None)
