"""The Gumbel noise of the face gate, as an explicit input: none, drawn from a seed, or recorded draws replayed.

The published model draws `softmax((logits + g) / tau)`, g ~ Gumbel(0, 1), at evaluation too, so its answers change
from run to run. Here a draw is a function of (seed, utterance, face, class) and of nothing else: not of batch, order,
number of faces, engine or machine. Generator: Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import DataError, FmmtError, UsageError
from fmmt_deploy.types import EMOTIONS, DataSet, FloatArray

__all__ = ["Noise", "gumbel_noise", "no_noise", "noise_from_option", "recorded_noise", "used_faces"]

CLASSES = len(EMOTIONS)
PER_UTTERANCE = "noise/"
ONE_TABLE = "gumbel_noise"
# What zipfile and NumPy raise for archives that are damaged, encrypted or hold objects.
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Noise(Protocol):
    """Gives the noise of one utterance."""

    def __call__(self, utterance: str, faces: int, vision_length: int, /) -> FloatArray:
        """Noise to add to the face logits of one utterance.

        Args:
            utterance: Its id.
            faces: How many of its faces are used, at most `vision_length`.
            vision_length: V, the rows asked for.

        Returns:
            `(V, 7)`, in the faces' order; rows from `faces` on are zero.

        Raises:
            DataError: Recorded noise that does not fit the utterance.
        """
        ...


def no_noise(_utterance: str, _faces: int, vision_length: int, /) -> FloatArray:
    """The deterministic limit, as a `Noise`: all zero."""
    return np.zeros((vision_length, CLASSES), np.float32)


def gumbel_noise(seed: int) -> Noise:
    """Draws of Gumbel(0, 1), the same for a (seed, utterance, face, class) whatever else is drawn.

    The bits come from integer arithmetic alone and are the same everywhere; the two logarithms are the machine's own
    float64 ones, so that between mathematics libraries a value may in rare cases differ in its last float32 bit.

    Args:
        seed: 0 to 2⁶⁴ − 1.

    Raises:
        UsageError: The seed is outside that range.
    """
    if not 0 <= seed < 2**64:
        raise UsageError(f"The seed must be between 0 and 2^64 - 1, found {seed}.", fix="Give a seed such as --seed 0.")

    def draw(utterance: str, faces: int, vision_length: int, /) -> FloatArray:
        return _padded(_gumbel(_uniform(seed, utterance, faces)), vision_length)

    return draw


def recorded_noise(path: Path, dataset: DataSet, vision_length: int) -> Noise:
    """Replays draws recorded in an `.npz` file.

    Args:
        path: Holds either `gumbel_noise` `(N, 7)`, one row a used face, utterances in the data set's order, or one
            `noise/<utterance id>` `(faces, 7)` an utterance. Other arrays in it are ignored.
        dataset: What the noise is for; every utterance must be covered exactly.
        vision_length: V, at most so many faces of an utterance are used.

    Raises:
        DataError: The file can't be read, holds neither or both forms, a number that is not finite, or another number
            of rows than the data set has used faces.
    """
    arrays = _arrays_from_npz(path)
    faces = used_faces(dataset, vision_length)
    rows = _rows_from_table(arrays[ONE_TABLE], faces, path) if ONE_TABLE in arrays else _rows_by_utterance(arrays)

    def replay(utterance: str, count: int, length: int, /) -> FloatArray:
        found = rows.get(utterance, np.zeros((0, CLASSES), np.float32))
        if len(found) != count:
            raise DataError(
                f"The noise of {utterance} must have {count} rows, one a used face, found {len(found)} in {path}.",
                fix="Record the noise with this data set and this model's number of vision positions.",
                path=path,
                tensor=PER_UTTERANCE + utterance,
            )
        return _padded(found, length)

    for utterance, count in faces.items():  # all now, rather than in the middle of a run
        replay(utterance, count, vision_length)
    return replay


def noise_from_option(option: str, seed: int, dataset: DataSet, vision_length: int) -> Noise:
    """The noise that a `--noise` option names.

    Args:
        option: `none`, `gumbel`, or the path of an `.npz` file of recorded draws.
        seed: For `gumbel`.
        dataset: What the noise is for.
        vision_length: V.

    Raises:
        UsageError: It is none of the three, or the seed is out of range.
        DataError: The recorded draws do not fit the data set.
    """
    if option == "none":
        return no_noise
    if option == "gumbel":
        return gumbel_noise(seed)
    if option.endswith(".npz"):
        return recorded_noise(Path(option), dataset, vision_length)
    raise UsageError(
        f"Noise must be 'none', 'gumbel' or an .npz file, found '{option}'.", fix="Give --noise none|gumbel|FILE.npz."
    )


def used_faces(dataset: DataSet, vision_length: int) -> dict[str, int]:
    """How many faces of each utterance a model uses (the first V), in the data set's order."""
    utterances = {utterance.id: utterance for dialogue in dataset.dialogues for utterance in dialogue.utterances}
    return {id_: min(len(utterances[id_].faces), vision_length) for id_ in dataset.order}


def _uniform(seed: int, utterance: str, faces: int) -> NDArray[np.float64]:
    """Uniform draws `(faces, 7)`; each is word 7·face + class of the utterance's own Philox stream."""
    digest = blake2b(utterance.encode(errors="surrogatepass"), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(digest, "little")], np.uint64)
    words = np.random.Philox(key=key).random_raw(faces * CLASSES)
    # The lowest of the 53 bits is set: odd / 2⁵³ is exact in float64 and can be neither 0 nor 1.
    odd = (words.reshape(faces, CLASSES) >> np.uint64(11)) | np.uint64(1)
    return odd.astype(np.float64) * 2.0**-53


def _gumbel(uniform: NDArray[np.float64]) -> FloatArray:
    return (-np.log(-np.log(uniform))).astype(np.float32)


def _padded(rows: FloatArray, vision_length: int) -> FloatArray:
    if len(rows) > vision_length:
        raise FmmtError(f"Noise for {len(rows)} faces was asked for, but at most {vision_length} are used.")
    padded = np.zeros((vision_length, CLASSES), np.float32)
    padded[: len(rows)] = rows
    return padded


def _arrays_from_npz(path: Path) -> dict[str, FloatArray]:
    """The noise arrays of a file, by name, checked one by one."""
    try:
        # NumPy leaves the file open where an archive turns out to be damaged, so it is opened here.
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is no .npz archive")
            archive = np.load(file, allow_pickle=False)
            names = [name for name in archive.files if name == ONE_TABLE or name.startswith(PER_UTTERANCE)]
            arrays = {name: _checked(np.asarray(archive[name]), name, path) for name in names}
    except UNREADABLE as error:
        raise DataError(f"The noise file {path} can't be read: {error}", fix="Give an .npz file.", path=path) from error
    forms = {name.startswith(PER_UTTERANCE) for name in arrays}
    if len(forms) != 1:
        found = "both" if forms else "neither"
        raise DataError(
            f"{path} must hold either '{ONE_TABLE}' or '{PER_UTTERANCE}<utterance id>' arrays, found {found}.",
            path=path,
        )
    return arrays


def _checked(array: NDArray[Any], name: str, path: Path) -> FloatArray:
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] != CLASSES:
        raise DataError(
            f"'{name}' in {path} must be floats of shape (faces, {CLASSES}), found {array.dtype} {array.shape}.",
            path=path,
            tensor=name,
        )
    with np.errstate(over="ignore"):  # what overflows float32 is caught below
        noise: FloatArray = array.astype(np.float32)
    if not np.isfinite(noise).all():
        raise DataError(f"'{name}' in {path} holds numbers that are not finite in float32.", path=path, tensor=name)
    return noise


def _rows_from_table(table: FloatArray, faces: Mapping[str, int], path: Path) -> dict[str, FloatArray]:
    total = sum(faces.values())
    if len(table) != total:
        raise DataError(
            f"'{ONE_TABLE}' in {path} must have one row for each of the {total} used faces, found {len(table)}.",
            fix="Record the noise with this data set, in its order, and with this model's number of vision positions.",
            path=path,
            tensor=ONE_TABLE,
        )
    ends = np.cumsum(list(faces.values()))
    return dict(zip(faces, np.split(table, ends[:-1]), strict=True)) if faces else {}


def _rows_by_utterance(arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name.removeprefix(PER_UTTERANCE): rows for name, rows in arrays.items()}
