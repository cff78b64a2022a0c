"""What may be calibrated on: enough real dialogues of train or val, none of the test split whatever it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.calibration.coverage import (
    FEWEST_DIALOGUES,
    FEWEST_UTTERANCES,
    Coverage,
    Reading,
    coverage_of,
    is_small,
)
from fmmt_deploy.calibration.plausible import check_plausible
from fmmt_deploy.data.content import content_of, distinctive, sharing
from fmmt_deploy.data.dataset import has_split, read_data
from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue

__all__ = [
    "CalibrationData",
    "calibration_data",
    "check_enough",
    "find_test_splits",
    "halves",
    "select_dialogues",
    "without_test",
]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """What is calibrated on, checked.

    Attributes:
        dataset: The dialogues.
        coverage: What they cover, for the receipt.
    """

    dataset: DataSet
    coverage: Coverage


def calibration_data(
    path: Path,
    split: str,
    architecture: Architecture,
    tokenizer: DialogueTokenizer | None,
    *,
    faces_dir: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    test_data: Path | None = None,
    allow_small: bool = False,
    leave_out_test: bool = False,
) -> CalibrationData:
    """Read, choose and check what to calibrate on.

    Args:
        path: The data set, as for `read_data`.
        split: train or val.
        architecture: The model's.
        tokenizer: Of the model; None if it reads no words.
        faces_dir: Where face images are, if not where the data set lists them.
        count: How many dialogues; None for all.
        seed: Which ones.
        test_data: Where another test split is, besides the one found with `path`.
        allow_small: Also with fewer than `FEWEST_DIALOGUES` or `FEWEST_UTTERANCES`.
        leave_out_test: Go on without the dialogues that are in a test split too, instead of refusing.

    Raises:
        DataError: There is no such split or it does not fit the model; some of it is in a test split; it is too small,
            has no faces though the model looks at them, or is made up.
    """
    chosen = select_dialogues(read_data(path, split, architecture, faces_dir), count, seed)
    tests = find_test_splits(path, architecture, faces_dir, test_data)
    dataset, left_out = without_test(chosen, tests, leave_out=leave_out_test)
    check_enough(dataset, architecture, allow_small=allow_small)
    check_plausible(dataset, architecture, tokenizer)
    reading = Reading(split, seed, len(left_out), tuple(test.source for test in tests))
    return CalibrationData(dataset, coverage_of(dataset, architecture, tokenizer, reading))


def select_dialogues(dataset: DataSet, count: int | None, seed: int = 0) -> DataSet:
    """Choose dialogues, the same on every machine; those of a smaller count are among those of a larger one.

    Args:
        dataset: The split.
        count: How many; None, or more than there are, for all.
        seed: Which ones.

    Returns:
        The chosen dialogues, in the data set's order.
    """
    return _subset(dataset, _drawn(dataset, seed)[:count])


def halves(dataset: DataSet, seed: int = 0) -> tuple[DataSet, DataSet]:
    """Divide the dialogues at random into two data sets, of which the first may have one more."""
    drawn = _drawn(dataset, seed)
    return _subset(dataset, drawn[::2]), _subset(dataset, drawn[1::2])


def _drawn(dataset: DataSet, seed: int) -> list[Dialogue]:
    """In an order that depends on nothing but the seed and each dialogue's own id."""

    def place(dialogue: Dialogue) -> bytes:
        return hashlib.blake2b(f"{seed} {dialogue.id}".encode(), digest_size=16).digest()

    return sorted(dataset.dialogues, key=place)


def _subset(dataset: DataSet, dialogues: Iterable[Dialogue]) -> DataSet:
    wanted = {dialogue.id for dialogue in dialogues}
    kept = tuple(dialogue for dialogue in dataset.dialogues if dialogue.id in wanted)
    utterances = {utterance.id for dialogue in kept for utterance in dialogue.utterances}
    return DataSet(dataset.source, kept, tuple(name for name in dataset.order if name in utterances))


def find_test_splits(
    path: Path, architecture: Architecture, faces_dir: Path | None = None, other: Path | None = None
) -> tuple[DataSet, ...]:
    """Find the test splits to compare with: the one at the same place, and another one, if given.

    Args:
        path: Where the data to calibrate on are: in a folder its test split is looked for, beside a file the file whose
            name says `test` instead, or `test` with the same ending.
        architecture: The model's.
        faces_dir: Where face images are, if not where the data sets list them.
        other: A folder or file with a test split.

    Returns:
        None, one or two.

    Raises:
        DataError: A test split that is there can't be read: then nothing says what is in it.
    """
    places = [place for place in (_test_place(path, architecture), other) if place is not None]
    found = []
    for place in dict.fromkeys(places):
        try:
            found.append(read_data(place, "test", architecture, faces_dir))
        except DataError as problem:
            raise DataError(
                f"The test split in {place} can't be read, so it can't be said that none of it is calibrated on.",
                why=problem.what,
                fix="Put it in order; or calibrate on a copy of the data without a test split, which will be noted.",
                path=place,
            ) from problem
    return tuple(found)


def _test_place(path: Path, architecture: Architecture) -> Path | None:
    if path.is_dir():
        return path if has_split(path, "test", architecture) else None
    names = [path.name.replace(split, "test") for split in ("train", "val", "dev")] + [f"test{path.suffix}"]
    beside = [path.with_name(name) for name in names if "test" in name]
    return next((place for place in beside if place.is_file()), None)


def without_test(
    dataset: DataSet, tests: Sequence[DataSet], *, leave_out: bool = False
) -> tuple[DataSet, tuple[str, ...]]:
    """Compare what utterances hold with test splits, and refuse, or leave out, what is in both.

    Args:
        dataset: To calibrate on.
        tests: To be evaluated on.
        leave_out: Leave the dialogues out that have such an utterance.

    Returns:
        The data set, and the ids of the dialogues that were left out.

    Raises:
        DataError: An utterance is in both, and `leave_out` is False.
    """
    contents = content_of(dataset)
    left_out: dict[str, None] = {}
    for test in tests:
        same = sharing(contents, distinctive(content_of(test)))
        if same and not leave_out:
            raise _is_test_data([content.utterance for content in same], dataset, test)
        left_out |= dict.fromkeys(content.dialogue for content in same)
    kept = (dialogue for dialogue in dataset.dialogues if dialogue.id not in left_out)
    return (_subset(dataset, kept) if left_out else dataset), tuple(left_out)


def _is_test_data(utterances: Sequence[str], dataset: DataSet, test: DataSet) -> DataError:
    shown = ", ".join(name[:80] for name in utterances[:_SHOWN])
    more = f" and {len(utterances) - _SHOWN} more" if len(utterances) > _SHOWN else ""
    count = f"{len(utterances)} of the {len(dataset.order)} utterances to calibrate on"
    return DataError(
        f"{count} are in the test split of {test.source} as well: {shown}{more}",
        why="Their words, features or faces are the same, whatever they are called; F1 there would flatter.",
        fix="Calibrate on train or val; where these share a few dialogues, --leave-out-test goes on without them.",
        path=dataset.source,
    )


def check_enough(dataset: DataSet, architecture: Architecture, *, allow_small: bool = False) -> None:
    """Refuse what is too little to take ranges from.

    Args:
        dataset: To calibrate on.
        architecture: The model's.
        allow_small: Refuse only what is nothing at all.

    Raises:
        DataError: It is too small, or has no faces though the model looks at them.
    """
    dialogues, utterances = len(dataset.dialogues), len(dataset.order)
    if not utterances or (is_small(dataset) and not allow_small):
        what = f"{dialogues} dialogues with {utterances} utterances are too few to calibrate on"
        needed = f"At least {FEWEST_DIALOGUES} dialogues with {FEWEST_UTTERANCES} utterances; a hundred are better."
        fix = "Give more of the split, or the other one." + " --allow-small goes on, and notes it." * (utterances > 0)
        raise DataError(what, why=needed, fix=fix, path=dataset.source)
    if architecture.swin is not None and not any(u.vision_length for d in dataset.dialogues for u in d.utterances):
        raise DataError(
            f"none of {utterances} utterances to calibrate on has a face, and the model looks at faces",
            fix="Give dialogues with faces.",
            path=dataset.source,
        )
