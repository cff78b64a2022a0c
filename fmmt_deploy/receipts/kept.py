"""Reading the receipts of a bundle, and what is wrong with each: its bytes, its place, what it follows.

Whatever somebody put among them is looked at and not trusted: nothing but plain files of a sensible size is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fmmt_deploy.bundle.manifest import MANIFEST_NAME, check_relative_path
from fmmt_deploy.errors import ArtefactError, BundleError, EnvironmentProblem
from fmmt_deploy.receipts.record import DamagedReceiptError, Receipt, receipt_from_bytes
from fmmt_deploy.receipts.subjects import ELSEWHERE

__all__ = ["FOLDER", "Kept", "kept_receipts", "last_of_chain", "name_of", "read_receipts"]

FOLDER = "receipts"

_NAME = re.compile(r"([0-9]{4,9})-[a-z][a-z-]*\.json")
_LARGEST_BYTES = 256 * 2**20
"""Far more than any command says."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt's file.

    Attributes:
        path: In the bundle.
        sha256: Of the file; "" where it can't be read as one.
        receipt: What it says, None if it is damaged.
        problem: What is wrong with it or with its place in the chain, or "".
    """

    path: str
    sha256: str
    receipt: Receipt | None
    problem: str


def kept_receipts(bundle_path: Path) -> tuple[Kept, ...]:
    """Every receipt of a bundle with what is wrong with it, in order; never raises for a damaged one.

    Raises:
        EnvironmentProblem: One can't be read.
    """
    try:
        return tuple(_checked(bundle_path))
    except OSError as error:
        raise EnvironmentProblem(
            f"The receipts of {bundle_path} can't be read.",
            why=str(error),
            fix="Check their permissions.",
            path=bundle_path,
        ) from error


def read_receipts(bundle_path: Path) -> tuple[Receipt, ...]:
    """The receipts of a bundle, in order; none where it has none.

    Raises:
        ArtefactError: One is damaged, or missing in the middle; the message names it.
        EnvironmentProblem: One can't be read.
    """
    found = []
    for kept in kept_receipts(bundle_path):
        if kept.problem or kept.receipt is None:
            raise ArtefactError(
                f"{kept.path} in the bundle {bundle_path} {kept.problem}.",
                why="Receipts are never changed once they are written.",
                fix="Run `fmmt verify` for all that is wrong, and copy the bundle again from where it is whole.",
                path=bundle_path / kept.path,
            )
        found.append(kept.receipt)
    return tuple(found)


def last_of_chain(directory: Path) -> tuple[int, str | None]:
    """The number and the hash of the receipt that the next one follows; 0 and None where there is none yet.

    Raises:
        ArtefactError: It is none that a chain can go on from.
        OSError: It can't be read.
    """
    try:
        if problem := _folder_problem(directory):
            raise DamagedReceiptError(problem)
        files = _files(directory)
        return (files[-1][0], hashlib.sha256(_content(files[-1][1])).hexdigest()) if files else (0, None)
    except DamagedReceiptError as error:
        last = directory / FOLDER if _folder_problem(directory) else files[-1][1]
        raise ArtefactError(
            f"No receipt can be written: {last} {error}.",
            fix="Take it away, or add --no-receipt to go on without a receipt.",
            path=last,
        ) from error


def _checked(bundle_path: Path) -> Iterator[Kept]:
    last = Kept("", "", None, _folder_problem(bundle_path))
    if last.problem:
        yield replace(last, path=FOLDER)
        return
    expected = 1
    for number, path in _files(bundle_path):
        receipt, digest, problem = _receipt(path)
        if receipt is not None:
            problem = _misplaced(receipt, number, expected, path.name) or _unchained(receipt, last)
        last = Kept(f"{FOLDER}/{path.name}", digest, receipt, problem)
        expected = number + 1
        yield last


def _folder_problem(bundle_path: Path) -> str:
    folder = bundle_path / FOLDER
    if not os.path.lexists(folder):
        return ""
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(bundle_path)):
        return "leads out of the bundle"
    return "" if folder.is_dir() else "is no folder"


def _receipt(path: Path) -> tuple[Receipt | None, str, str]:
    """What a file says, its hash, and what is wrong with it, as far as it can be read."""
    digest = ""
    try:
        content = _content(path)
        digest = hashlib.sha256(content).hexdigest()
        receipt = receipt_from_bytes(content)
        _refuse_strays(receipt)
        return receipt, digest, ""
    except DamagedReceiptError as error:
        return None, digest, str(error)


def _content(path: Path) -> bytes:
    """A receipt's bytes; a pipe or a device, which could keep us for ever, is not opened for them.

    Raises:
        DamagedReceiptError: It is a link, no plain file, or larger than any receipt.
        OSError: It can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise DamagedReceiptError("is a link, or no file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedReceiptError("is no file")
        if status.st_size > _LARGEST_BYTES:
            raise DamagedReceiptError(f"is larger than any receipt: {status.st_size} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _refuse_strays(receipt: Receipt) -> None:
    """A receipt that names a file outside must not make us read it.

    Raises:
        DamagedReceiptError: There is one.
    """
    for name in (*receipt.subjects, *receipt.outputs):
        if name == MANIFEST_NAME or name.startswith(ELSEWHERE):
            continue
        try:
            check_relative_path(name)
        except BundleError as error:
            raise DamagedReceiptError(f"tells of a file that can't be in a bundle: {ascii(name)[:80]}") from error


def _misplaced(receipt: Receipt, number: int, expected: int, name: str) -> str:
    """What is wrong with a receipt's number or name, or ""."""
    if number > expected:
        missing = f"number {expected} is" if number == expected + 1 else f"numbers {expected} to {number - 1} are"
        return f"follows a gap: {missing} missing"
    if number < expected:
        return f"is a second number {number}"
    if name != name_of(receipt):
        return f"was renamed: it is number {receipt.number}, of `fmmt {receipt.command}`"
    return ""


def _unchained(receipt: Receipt, last: Kept) -> str:
    """Whether a receipt names another file before it; where that one is damaged, it is known to be another."""
    if last.path and last.receipt is None:
        return ""
    if receipt.previous == (last.sha256 or None):
        return ""
    return f"is not of this chain: it follows another receipt than {last.path or 'none, as the first does'}"


def name_of(receipt: Receipt) -> str:
    """The name of a receipt's file."""
    return f"{receipt.number:04}-{receipt.command}.json"


def _files(directory: Path) -> list[tuple[int, Path]]:
    """Receipts by number; other files of the folder are not of the chain."""
    folder = directory / FOLDER
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found)
