"""Adding to the receipts of a bundle: `receipts/0001-export.json` and so on, each naming the hash of the one before."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from fmmt_deploy.bundle.atomic import locked, recover, replaced_file, sync_directory
from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from fmmt_deploy.receipts.kept import FOLDER, last_of_chain, name_of
from fmmt_deploy.receipts.record import Receipt, bytes_from_receipt
from fmmt_deploy.receipts.subjects import ELSEWHERE

__all__ = ["add_receipt", "append_receipt", "check_appendable"]

_TEMPORARY = re.compile(r"\.\d{4,}-[a-z-]+\.json\.tmp-\d+")


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
        ArtefactError: What is at the end of the chain is no receipt.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    with locked(folder):  # of a bundle that is a mount point, others may see another folder around it
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):  # of a writer that was killed: none is alive while we hold the lock
                path.unlink()
        number, previous = last_of_chain(directory)
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
        ArtefactError: What is at the end of the chain is no receipt.
    """
    target = Path(os.path.realpath(bundle_path))
    folder = target / FOLDER
    for path, needed in ((folder if folder.is_dir() else target, os.W_OK | os.X_OK), (target.parent, os.R_OK)):
        if path.exists() and not os.access(path, needed):
            raise EnvironmentProblem(
                f"No receipt can be written into the bundle {bundle_path}.",
                why=f"{path} can't be {'written' if needed & os.W_OK else 'read, which a lock needs'}.",
                fix="Add --no-receipt to go on without one, or change its permissions.",
                path=path,
            )
    try:
        last_of_chain(target)
    except OSError as error:
        raise EnvironmentProblem(
            f"No receipt can be written into the bundle {bundle_path}.",
            why=f"The one that it would follow can't be read: {error}",
            fix="Add --no-receipt to go on without one, or change its permissions.",
            path=folder,
        ) from error
