"""Writing a bundle, which is all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from fmmt_deploy.bundle.atomic import (
    create_sibling,
    link_or_copy,
    locked,
    recover,
    remove_stale,
    replace_directory,
    sync_tree,
)
from fmmt_deploy.bundle.disk import check_room, disk_problems
from fmmt_deploy.bundle.integrity import check_files, entries_of
from fmmt_deploy.bundle.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    check_relative_path,
    json_from_manifest,
    manifest_from_json,
    read_manifest,
)
from fmmt_deploy.bundle.replacing import check_replaceable
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import EnvironmentProblem, UsageError

__all__ = ["BundleWriter", "Finish", "write_bundle"]

_NOT_INSTALLED = "a checkout, not installed"

Finish: TypeAlias = Callable[[Path, Bundle], None]
"""What is done last, while no other process can write here: gets the folder that becomes the bundle, and the bundle as
it will be."""


class BundleWriter:
    """A bundle that is being made, in a temporary directory beside its place.

    Attributes:
        directory: Where to write files to.
        target: Where the bundle will be.
    """

    def __init__(self, directory: Path, target: Path, force: bool) -> None:
        self.directory, self.target, self._force = directory, target, force
        self._linked: dict[str, FileEntry] = {}

    def place(self, relative: str) -> Path:
        """The path to write a file to; its folder is made.

        Raises:
            BundleError: The path leaves the bundle.
        """
        check_relative_path(relative)
        path = self.directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._linked.pop(relative, None) is not None:
            path.unlink()  # it is another bundle's too: never write through it
        return path

    def add_bytes(self, relative: str, content: bytes) -> Path:
        """Writes a file, and says where it is now.

        Raises:
            BundleError: The path leaves the bundle.
        """
        path = self.place(relative)
        path.write_bytes(content)
        return path

    def link_file(self, relative: str, source: Path, entry: FileEntry) -> None:
        """Takes over a file of another bundle, which costs no room, and no time to hash it.

        Args:
            relative: Its path in this bundle.
            source: It; never changed, since both bundles then hold it.
            entry: Its hash and size, as that bundle's manifest lists them.

        Raises:
            BundleError: The path leaves the bundle.
        """
        link_or_copy(source, self.place(relative))
        self._linked[relative] = entry

    def copy_file(self, relative: str, source: Path) -> None:
        """Copies a file of another bundle.

        Raises:
            BundleError: The path leaves the bundle.
        """
        shutil.copyfile(source, self.place(relative))

    def commit(self, manifest: Manifest, replaces: Manifest | None = None, finish: Finish | None = None) -> Bundle:
        """Puts the bundle in its place, in one step.

        Args:
            manifest: What it holds. `files` is ignored and computed from the directory, and `tools` gets our version.
            replaces: The manifest that must still be at the target; default there need not be one.
            finish: Adds what the manifest does not list, such as a receipt.

        Returns:
            The bundle, at its target.

        Raises:
            BundleError: The manifest is not valid for the files that were added.
            UsageError: The target came to exist, or changed, in the meantime.
        """
        files = entries_of(self.directory, self._linked)
        manifest = replace(manifest, files=files, tools={**manifest.tools, "fmmt-deploy": _own_version()})
        text = json_from_manifest(manifest)
        manifest = manifest_from_json(text)
        (self.directory / MANIFEST_NAME).write_text(text, encoding="utf-8")
        check_files(self.directory, manifest, verify=False)
        sync_tree(self.directory)
        bundle = Bundle(self.target, manifest)
        with locked(self.target.parent):
            check_replaceable(self.target, self._force)
            if replaces is not None and read_manifest(self.target) != replaces:
                raise UsageError(f"The bundle {self.target} was changed meanwhile.", fix="Run the command again.")
            if finish is not None:
                finish(self.directory, bundle)
            replace_directory(self.directory, self.target)
            remove_stale(self.target)
        return bundle


@contextmanager
def write_bundle(path: Path, force: bool = False, needed_bytes: int = 0) -> Iterator[BundleWriter]:
    """Makes a bundle; nothing is at `path` before `commit`, and if that is never called nothing ever is.

    Whatever happens, a kill at any instant included, `path` then holds the old bundle or the new one (see `atomic`).

    Args:
        path: The bundle's directory; a link is followed.
        force: Whether to replace a bundle that is there. Anything else that is there is never replaced.
        needed_bytes: About how large it will be, to refuse at once where there is no room.

    Yields:
        What to write with.

    Raises:
        UsageError: Something is at `path` already.
        EnvironmentProblem: The disk is full, or `path` can't be written.
    """
    target = Path(os.path.realpath(path))
    with disk_problems(target, needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent):
            recover(target)
            remove_stale(target)
            check_replaceable(target, force)  # under the lock: between a swap's two renames nothing is there to check
        if os.path.ismount(target):  # and not Path.is_mount, which raises if a swap makes it absent in between
            fix = "Give another path with --out, such as a folder in it."
            raise EnvironmentProblem(f"{target} is a mount point, which can't be replaced.", fix=fix, path=target)
        check_room(target, needed_bytes)
        with create_sibling(target) as directory:
            yield BundleWriter(directory, target, force)


def _own_version() -> str:
    try:
        return version("fmmt-deploy")
    except PackageNotFoundError:  # run from a checkout, as on a machine that is only lent
        return _NOT_INSTALLED
