"""Noise: Philox and the Gumbel transform against independent ones, recorded draws against the golden data."""

import zipfile
from collections.abc import Sequence
from decimal import Decimal, localcontext
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.errors import DataError, FmmtError, UsageError
from fmmt_deploy.pipeline.noise import gumbel_noise, no_noise, noise_from_option, recorded_noise, used_faces
from fmmt_deploy.types import DataSet, Dialogue, Utterance
from tests.golden import GOLDEN


def dataset(faces: Sequence[int], order: Sequence[int] | None = None) -> DataSet:
    """One dialogue; utterance i is called `u<i>` and has `faces[i]` faces."""
    utterances = tuple(
        Utterance(f"u{i}", i, None, tuple(Path(f"{i}_{k}.jpg") for k in range(count)), None, 0, None, 0)
        for i, count in enumerate(faces)
    )
    ids = tuple(f"u{i}" for i in (range(len(faces)) if order is None else order))
    return DataSet("made by the test", (Dialogue("d", None, None, utterances),), ids)


def philox_words(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10, written from the paper (constants of its table 2), the counter starting at 1 as NumPy's does."""
    words: list[int] = []
    block = 0
    while len(words) < count:
        block += 1
        x, (k0, k1) = [block, 0, 0, 0], key
        for _ in range(10):
            a, b = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
            mask = 2**64 - 1
            x = [(b >> 64) ^ x[1] ^ k0, b & mask, (a >> 64) ^ x[3] ^ k1, a & mask]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += x
    return words[:count]


def independent_draws(seed: int, utterance: str, faces: int) -> np.ndarray:
    """The same noise with Python's integers and 50-digit decimals."""
    identity = int.from_bytes(blake2b(utterance.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
    with localcontext() as context:
        context.prec = 50
        uniform = [Decimal((word >> 11) | 1) / 2**53 for word in philox_words((seed, identity), 7 * faces)]
        return np.array([float(-(-u.ln()).ln()) for u in uniform]).reshape(faces, 7)


@pytest.mark.parametrize(
    ("seed", "utterance"), [(0, "dia0_utt0"), (2**64 - 1, "dia12_utt3"), (1111, "été"), (3, "\ud800")]
)
def test_draws_are_those_of_an_independent_implementation(seed: int, utterance: str) -> None:
    drawn = gumbel_noise(seed)(utterance, 3, 5)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn[:3], independent_draws(seed, utterance, 3), rtol=2e-7)


# From `independent_draws`, once.
FROZEN_0 = [-1.15627394, 0.27909160, 3.29576301, 1.46379760, 0.15231143, -0.61079079, 0.14984685]
FROZEN_7 = [0.63995675, 0.18770570, 1.82758459, 0.69017675, 1.20391829, 0.86571475, 1.05890071]


def test_draws_are_frozen() -> None:
    """Pinned, so that recorded results stay reproducible from release to release."""
    assert gumbel_noise(0)("dia0_utt0", 1, 1)[0].tolist() == pytest.approx(FROZEN_0, rel=1e-6)
    assert gumbel_noise(7)("dia3_utt11", 2, 2)[1].tolist() == pytest.approx(FROZEN_7, rel=1e-6)


def test_draws_follow_the_gumbel_distribution() -> None:
    """Kolmogorov-Smirnov against exp(−exp(−x)); 1.95 / √n is the critical value at 0.1 %."""
    noise = gumbel_noise(5)
    drawn = np.sort(np.concatenate([noise(f"dia{i}_utt0", 10, 10).ravel() for i in range(400)]).astype(np.float64))
    cumulative = np.exp(-np.exp(-drawn))
    n = len(drawn)
    distance = max(np.abs(cumulative - np.arange(n) / n).max(), np.abs(cumulative - np.arange(1, n + 1) / n).max())
    assert distance < 1.95 / np.sqrt(n)
    assert len(np.unique(drawn)) > 0.999 * n


@given(
    seed=st.integers(0, 2**64 - 1),
    names=st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4, unique=True),
    faces=st.integers(0, 6),
    more=st.integers(0, 4),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_draw_depends_on_nothing_else(
    seed: int, names: list[str], faces: int, more: int, data: st.DataObject
) -> None:
    """Not on the order, nor on how many faces are drawn or how many rows are asked for."""
    alone = {name: gumbel_noise(seed)(name, faces, faces) for name in names}
    together = gumbel_noise(seed)
    for name in data.draw(st.permutations(names)):
        drawn = together(name, faces + more, faces + more + 2)
        np.testing.assert_array_equal(drawn[:faces], alone[name])
        assert drawn.shape == (faces + more + 2, 7)
        assert not drawn[faces + more :].any()
        assert np.isfinite(drawn).all()


def test_seeds_and_utterances_differ() -> None:
    first = gumbel_noise(1)("dia0_utt0", 4, 4)
    assert not np.isin(first, gumbel_noise(2)("dia0_utt0", 4, 4)).any()
    assert not np.isin(first, gumbel_noise(1)("dia0_utt1", 4, 4)).any()


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_extreme_words_stay_finite(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Extreme:
        def __init__(self, key: object) -> None:
            pass

        def random_raw(self, size: int) -> np.ndarray:
            return np.full(size, word, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Extreme)
    assert np.isfinite(gumbel_noise(0)("u", 2, 2)).all()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=f"found {seed}"):
        gumbel_noise(seed)


def test_too_many_faces_is_a_bug_of_the_caller() -> None:
    with pytest.raises(FmmtError, match="3 faces"):
        gumbel_noise(0)("u", 3, 2)


def test_no_noise_is_zero() -> None:
    drawn = no_noise("u", 2, 4)
    assert drawn.shape == (4, 7)
    assert drawn.dtype == np.float32
    assert not drawn.any()


def test_used_faces_follow_the_data_sets_order_and_stop_at_v() -> None:
    assert list(used_faces(dataset([2, 9, 0], order=[1, 0, 2]), 6).items()) == [("u1", 6), ("u0", 2), ("u2", 0)]


@pytest.mark.parametrize("model", ["roberta", "bert"])
def test_golden_noise_is_cut_into_utterances(model: str) -> None:
    expected = np.load(GOLDEN / model / "expected.npz")
    faces = expected["faces_per_utterance"].tolist()
    noise = recorded_noise(GOLDEN / model / "expected.npz", dataset(faces), 6)
    start = 0
    for i, count in enumerate(faces):
        drawn = noise(f"u{i}", count, 6)
        np.testing.assert_array_equal(drawn[:count], expected["gumbel_noise"][start : start + count])
        assert drawn.shape == (6, 7)
        assert not drawn[count:].any()
        start += count
    assert start == len(expected["gumbel_noise"])


def test_one_table_is_read_in_the_data_sets_order_and_cut_at_v(tmp_path: Path) -> None:
    table = np.arange(35.0).reshape(5, 7)
    np.savez(tmp_path / "n.npz", gumbel_noise=table)
    noise = recorded_noise(tmp_path / "n.npz", dataset([2, 0, 8], order=[2, 1, 0]), 3)
    np.testing.assert_array_equal(noise("u2", 3, 3), table[:3])
    np.testing.assert_array_equal(noise("u1", 0, 3), np.zeros((3, 7)))
    np.testing.assert_array_equal(noise("u0", 2, 3), np.vstack([table[3:], np.zeros((1, 7))]))


def test_noise_by_utterance_replays_what_was_drawn(tmp_path: Path) -> None:
    drawn = gumbel_noise(3)
    rows = {"noise/u0": drawn("u0", 2, 2), "noise/u1": drawn("u1", 4, 4), "other": np.zeros(3)}
    np.savez(tmp_path / "n.npz", **rows)
    replayed = recorded_noise(tmp_path / "n.npz", dataset([2, 7, 0]), 4)
    for utterance, count in (("u0", 2), ("u1", 4), ("u2", 0)):
        np.testing.assert_array_equal(replayed(utterance, count, 4), drawn(utterance, count, 4))


def test_an_empty_data_set_has_no_noise(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", gumbel_noise=np.zeros((0, 7)))
    with pytest.raises(DataError, match="must have 1 rows"):
        recorded_noise(tmp_path / "n.npz", dataset([]), 4)("u0", 1, 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"gumbel_noise": np.zeros((4, 7))}, "the 5 used faces, found 4"),
        ({"gumbel_noise": np.zeros((6, 7))}, "the 5 used faces, found 6"),
        ({"gumbel_noise": np.zeros((5, 6))}, r"shape \(faces, 7\), found float64 \(5, 6\)"),
        ({"gumbel_noise": np.zeros((5, 7), np.int64)}, "must be floats"),
        ({"gumbel_noise": np.full((5, 7), np.nan)}, "not finite"),
        ({"gumbel_noise": np.full((5, 7), -np.inf)}, "not finite"),
        ({"gumbel_noise": np.full((5, 7), 1e39)}, "not finite in float32"),
        ({"noise/u0": np.zeros((2, 7))}, "u1 must have 3 rows.*found 0"),
        ({"noise/u0": np.zeros((2, 7)), "noise/u1": np.zeros((4, 7))}, "u1 must have 3 rows.*found 4"),
        ({"noise/u0": np.zeros((2, 7)), "gumbel_noise": np.zeros((5, 7))}, "found both"),
        ({"logits": np.zeros((2, 7))}, "found neither"),
        ({"gumbel_noise": np.array([[None] * 7])}, "can't be read"),
    ],
)
def test_noise_that_does_not_fit_is_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=message):
        recorded_noise(tmp_path / "n.npz", dataset([2, 8]), 3)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "n.npz", "w") as archive:
        archive.writestr("gumbel_noise", b"words")
    with pytest.raises(DataError, match="must be floats"):
        recorded_noise(tmp_path / "n.npz", dataset([1]), 3)


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 7), }"
NPY = b"\x93NUMPY\x01\x00" + (len(HEADER) + 1).to_bytes(2, "little") + HEADER + b"\n"


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 nothing", b"\x80\x04.", NPY])
def test_a_file_that_is_no_archive_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "n.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="can't be read"):
        recorded_noise(path, dataset([1]), 3)


@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused(
    flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / "n.npz"
    np.savez_compressed(path, gumbel_noise=np.linspace(0, 1, 35).reshape(5, 7))
    content = bytearray(path.read_bytes())
    for position, value in flips:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        noise = recorded_noise(path, dataset([2, 3]), 3)
    except DataError:
        return
    assert np.isfinite(noise("u0", 2, 3)).all()


def test_the_option_names_the_noise(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", gumbel_noise=np.ones((1, 7)))
    data = dataset([1])
    assert not noise_from_option("none", 3, data, 2)("u0", 1, 2).any()
    np.testing.assert_array_equal(noise_from_option("gumbel", 3, data, 2)("u0", 1, 2), gumbel_noise(3)("u0", 1, 2))
    assert noise_from_option(str(tmp_path / "n.npz"), 3, data, 2)("u0", 1, 2).sum() == 7
    with pytest.raises(UsageError, match="found 'laplace'"):
        noise_from_option("laplace", 3, data, 2)
