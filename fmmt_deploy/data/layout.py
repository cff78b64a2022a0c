"""Where the files of a data set are: found by name anywhere under its folder, face images by the paths it lists."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fmmt_deploy.errors import DataError

__all__ = ["FaceFinder", "FileIndex"]


class FileIndex:
    """The data files under a folder; symbolic links are followed, each folder is visited once.

    Args:
        root: The folder.
        suffixes: Which files are of interest; faces are not.

    Raises:
        DataError: If there is no such folder.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...] = (".csv", ".json", ".jsonl", ".pkl", ".dt")) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is no folder", fix="Give the folder that holds the data set's files.", path=root)
        self.root = root
        self._files: list[Path] = []
        visited: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in visited:
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders.sort()
            self._files += [Path(folder, name) for name in sorted(names) if name.endswith(suffixes)]

    def has(self, name: str) -> bool:
        """Say whether a file of this name is there, once or more often."""
        return any(path.name == name for path in self._files)

    def find(self, names: Sequence[str], folders: Sequence[str] = ()) -> Path | None:
        """Return the file of one of these names.

        Args:
            names: File names, each as good as the other.
            folders: If given, the file in a folder of the first such name wins over later ones, and over any other.

        Raises:
            DataError: If several fit equally.
        """
        return self.match(lambda path: path.name in names, folders)

    def match(self, fits: Callable[[Path], bool], folders: Sequence[str] = ()) -> Path | None:
        """As `find`, with a condition instead of names."""
        found = [path for path in self._files if fits(path)]
        for folder in folders:
            inside = [path for path in found if path.parent.name == folder]
            if inside:
                return _only(inside)
        return _only(found)

    def need(self, names: Sequence[str], folders: Sequence[str] = ()) -> Path:
        """As `find`, but an absent file is an error.

        Raises:
            DataError: If none or several fit.
        """
        found = self.find(names, folders)
        if found is None:
            fix = "It is one of the published files; put it anywhere under that folder."
            raise DataError(f"{self.root} has no file {' or '.join(names)}", fix=fix, path=self.root)
        return found


def _only(found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        what = f"{found[0].name} is there more than once: {found[0]} and {found[1]}"
        raise DataError(what, fix="Take one away, or give the folder that holds only the right one.", path=found[0])
    return found[0] if found else None


class FaceFinder:
    """Turns the paths that a data set lists into paths of files.

    A path is taken as it is if it is absolute and exists, else relative to `base`, else, with `faces_dir`, relative to
    that, with as many of its leading folders left out as needed (data sets list the paths of the machine they were made
    on).

    Args:
        base: The data set's own folder.
        faces_dir: Where the faces are, if they were moved.
    """

    def __init__(self, base: Path, faces_dir: Path | None = None) -> None:
        self._base, self._faces_dir = base, faces_dir

    def find(self, listed: Sequence[str], utterance: str, source: Path) -> tuple[Path, ...]:
        """Return the files of an utterance's listed paths.

        Raises:
            DataError: If one is not there, naming the utterance.
        """
        return tuple(self._find(path, utterance, source) for path in listed)

    def _find(self, listed: str, utterance: str, source: Path) -> Path:
        for candidate in self._candidates(listed):
            if os.path.isfile(candidate):  # noqa: PTH113  # asked half a million times for the training split
                return Path(candidate)
        where = self._faces_dir or self._base
        what = f"{source.name}: face {listed[:200]} of {utterance} is not there, nor under {where}"
        fix = "Give the folder the faces are in." if self._faces_dir is None else "Check the folder of the faces."
        raise DataError(what, fix=fix, path=source)

    def _candidates(self, listed: str) -> Iterable[str]:
        yield os.path.join(self._faces_dir or self._base, listed)  # noqa: PTH118  # an absolute path stays itself
        if self._faces_dir is None:
            return
        yield os.path.join(self._base, listed)  # noqa: PTH118
        parts = [part for part in re.split(r"[/\\]", listed) if part]
        for left_out in range(len(parts)):
            yield os.path.join(self._faces_dir, *parts[left_out:])  # noqa: PTH118
