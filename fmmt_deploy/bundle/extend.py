"""Adding to a bundle: a new one with all its unchanged files, in the place of the old or beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fmmt_deploy.bundle.atomic import link_or_copy, sync_tree
from fmmt_deploy.bundle.integrity import CACHES
from fmmt_deploy.bundle.manifest import Manifest
from fmmt_deploy.bundle.replacing import check_replaceable
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import BundleWriter, Finish, write_bundle

__all__ = ["ExtensionWriter", "extend_bundle"]


class ExtensionWriter:
    """A bundle that is being made from another one, whose files it holds already.

    Args:
        writer: What to write new files with.
        bundle: The other one.
        in_place: Whether it will be replaced.
    """

    def __init__(self, writer: BundleWriter, bundle: Bundle, in_place: bool) -> None:
        self._writer, self._bundle, self._in_place = writer, bundle, in_place
        self._taken: dict[Path, tuple[int, int]] = {}

    def place(self, relative: str) -> Path:
        """The path to write a new file to; see `BundleWriter.place`."""
        return self._writer.place(relative)

    def commit(self, manifest: Manifest, finish: Finish | None = None) -> Bundle:
        """Puts the bundle in its place, with the engines and receipts that the other one has by then.

        Args:
            manifest: See `BundleWriter.commit`.
            finish: Likewise.

        Raises:
            BundleError: The manifest is not valid for the files that are there.
            UsageError: The bundle was changed meanwhile, or the target came to exist.
        """

        def finished(directory: Path, bundle: Bundle) -> None:
            self._take_over()  # again, for what came since: receipts come only while their writer holds the lock
            if finish is not None:
                finish(directory, bundle)
            for folder in filter(Path.is_dir, (directory / name for name in CACHES)):
                sync_tree(folder)

        self._take_over()  # most of it, while others need not wait: it may be gigabytes where links are not to be had
        return self._writer.commit(manifest, self._bundle.manifest if self._in_place else None, finished)

    def _take_over(self) -> None:
        """Links or copies what the manifest does not list; what is new here stays."""
        for path in (path for folder in CACHES for path in (self._bundle.path / folder).rglob("*")):
            with suppress(FileNotFoundError):  # of an engine that is just being written
                status = path.stat()
                changed = (status.st_ino, status.st_mtime_ns)
                if not path.is_file() or self._taken.get(path) == changed:
                    continue
                copy = self._writer.place(path.relative_to(self._bundle.path).as_posix())
                if path in self._taken:
                    copy.unlink(missing_ok=True)
                elif copy.exists():
                    continue
                link_or_copy(path, copy)
                self._taken[path] = changed


@contextmanager
def extend_bundle(
    bundle: Bundle,
    out: Path | None = None,
    force: bool = False,
    needed_bytes: int = 0,
    without: Collection[str] = (),
) -> Iterator[ExtensionWriter]:
    """Makes a bundle with all files of another one but those that are to be made anew.

    In its place files are taken over by hard links where the file system has them, so that gigabytes cost nothing.
    Beside it they are copied: `onnx` takes a weight file with two names for an attack. A kill at any instant leaves the
    old bundle or the new one.

    Args:
        bundle: The other one; its files are never changed.
        out: Where the new one goes; default in its place.
        force: Whether to replace a bundle that is at `out`.
        needed_bytes: About how large the new files will be.
        without: Paths that the new one does not take over.

    Yields:
        What to write with.

    Raises:
        UsageError: Something is at `out` already, or it is inside the bundle.
        EnvironmentProblem: The disk is full, or the place can't be written.
    """
    in_place = out is None
    if out is not None:
        check_replaceable(out, force, bundle.path)
    kept = {relative: entry for relative, entry in bundle.manifest.files.items() if relative not in without}
    needed_bytes += 0 if in_place else sum(entry.size_bytes for entry in kept.values())
    with write_bundle(bundle.path if out is None else out, force or in_place, needed_bytes) as writer:
        for relative, entry in kept.items():
            if in_place:
                writer.link_file(relative, bundle.file(relative), entry)
            else:
                writer.copy_file(relative, bundle.file(relative))
        yield ExtensionWriter(writer, bundle, in_place)
