"""The receipts of a bundle: `receipts/0001-export.json` and so on, each naming the SHA-256 of the one before."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fmmt_deploy.bundle.atomic import locked, recover, replaced_file, sync_directory
from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import ArtefactError, BundleError, EnvironmentProblem
from fmmt_deploy.receipts.record import DamagedReceiptError, Receipt, bytes_from_receipt, receipt_from_bytes
from fmmt_deploy.receipts.subjects import ELSEWHERE

__all__ = [
    "FOLDER",
    "Kept",
    "add_receipt",
    "append_receipt",
    "check_appendable",
    "kept_receipts",
    "name_of",
    "read_receipts",
]

FOLDER = "receipts"

_NAME = re.compile(r"(\d{4,})-[a-z][a-z-]*\.json")
_TEMPORARY = re.compile(r"\.\d{4,}-[a-z-]+\.json\.tmp-\d+")


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt's file.

    Attributes:
        path: In the bundle.
        sha256: Of the file.
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


def append_receipt(bundle: Bundle, receipt: Receipt) -> str:
    """Puts a receipt at the end of a bundle's chain, whatever other processes do at the same time.

    Args:
        bundle: The bundle; if it was replaced meanwhile, the receipt goes into the one that is there now.
        receipt: It, without number and predecessor.

    Returns:
        Its path in the bundle.

    Raises:
        EnvironmentProblem: It can't be written.
        BundleError: The bundle, or something that the receipt says was made, is gone.
    """
    target = Path(os.path.realpath(bundle.path))
    with disk_problems(target / FOLDER, 0), locked(target.parent):
        recover(target)
        for relative in (MANIFEST_NAME, *receipt.outputs):
            if not relative.startswith(ELSEWHERE) and not (target / relative).exists():
                raise BundleError(
                    f"{relative} is gone: the bundle {bundle.path} was replaced meanwhile.",
                    fix="Run the command again.",
                    path=bundle.path,
                )
        return add_receipt(target, receipt)


def add_receipt(directory: Path, receipt: Receipt) -> str:
    """Puts a receipt at the end of the chain in a folder; the caller holds the lock of the folder around it.

    Returns:
        Its path in the folder.

    Raises:
        OSError: It can't be written.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    with locked(folder):  # of a bundle that is a mount point, others may see another folder around it
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):  # of a writer that was killed: none is alive while we hold the lock
                path.unlink()
        files = _files(directory)
        number, last = files[-1] if files else (0, None)
        previous = None if last is None else hashlib.sha256(last.read_bytes()).hexdigest()
        numbered = replace(receipt, number=number + 1, previous=previous)
        path = folder / name_of(numbered)
        with replaced_file(path) as temporary:
            temporary.write_bytes(bytes_from_receipt(numbered))
        sync_directory(folder)
        sync_directory(directory)
    return f"{FOLDER}/{path.name}"


def check_appendable(bundle_path: Path) -> None:
    """Refuses at once what could not get a receipt at the end.

    Raises:
        EnvironmentProblem: The bundle, or the folder around it, can't be written or locked.
    """
    target = Path(os.path.realpath(bundle_path))
    folder = target / FOLDER
    for path, needed in ((folder if folder.exists() else target, os.W_OK | os.X_OK), (target.parent, os.R_OK)):
        if path.exists() and not os.access(path, needed):
            raise EnvironmentProblem(
                f"No receipt can be written into the bundle {bundle_path}.",
                why=f"{path} can't be {'written' if needed & os.W_OK else 'read, which a lock needs'}.",
                fix="Add --no-receipt to go on without one, or change its permissions.",
                path=path,
            )


def _checked(bundle_path: Path) -> Iterator[Kept]:
    last = Kept("", "", None, "")
    expected = 1
    for number, path in _files(bundle_path):
        content = path.read_bytes()
        receipt, problem = _receipt(content)
        if receipt is not None:
            problem = _misplaced(receipt, number, expected, path.name) or _unchained(receipt, last)
        last = Kept(f"{FOLDER}/{path.name}", hashlib.sha256(content).hexdigest(), receipt, problem)
        expected = number + 1
        yield last


def _receipt(content: bytes) -> tuple[Receipt | None, str]:
    try:
        return receipt_from_bytes(content), ""
    except DamagedReceiptError as error:
        return None, str(error)


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
