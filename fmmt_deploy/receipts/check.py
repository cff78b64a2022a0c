"""Everything that hashes and seals can tell of a bundle: what is altered, missing, or vouched for by nobody.

Unlike opening a bundle it does not stop at the first problem, and it reads what a bundle's manifest does not list: the
manifest itself, receipts, engines, verdicts, compiled kernels. A receipt tells what it made; the latest one counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from fmmt_deploy.bundle.integrity import CACHES, check_files, hash_file
from fmmt_deploy.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest, read_manifest
from fmmt_deploy.bundle.sealed import BrokenSealError, read_document, read_sealed
from fmmt_deploy.errors import BundleError
from fmmt_deploy.receipts.kept import FOLDER, Kept, kept_receipts
from fmmt_deploy.receipts.subjects import ELSEWHERE

__all__ = ["Checked", "Finding", "check_bundle"]

ENGINES, _ = CACHES
_SEALED = (".engine", ".verdict", ".kernels", ".cache")
_TEMPORARY = re.compile(rf"^({ENGINES}|{FOLDER})/\.[^/]+\.(tmp-[0-9a-f-]+|lock)$")
"""What is just being written, or was left by a writer that was killed; the next one removes it."""
_THREADS = 4
_CLOCKS_DIFFER = timedelta(minutes=1)
"""A receipt is dated before it waits for its turn, and machines that share a bundle need not agree to the second."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A file, relative to the bundle, and what is to say of it."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found.

    Attributes:
        manifest: The bundle's, if it can be read.
        files: How many files were read from the first byte to the last.
        problems: What is altered, missing or contradictory.
        notes: What is not wrong, but nobody vouches for it, or it is not there any more.
    """

    manifest: Manifest | None
    files: int
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def check_bundle(path: Path) -> Checked:
    """Reads every file of a bundle, and compares it with all that is said of it.

    Raises:
        BundleError: There is no bundle.
        EnvironmentProblem: A receipt can't be read.
    """
    check = _Check(path)
    check.receipts()
    check.manifest()
    check.files()
    check.engines()
    check.unlisted()
    return Checked(check.found_manifest, len(check.digests), tuple(check.problems), tuple(check.notes))


class _Check:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []
        self.digests: dict[str, str] = {}
        self.found_manifest: Manifest | None = None
        self._kept: tuple[Kept, ...] = ()
        self._made: Mapping[str, tuple[str, str]] = {}

    def receipts(self) -> None:
        self._kept = kept_receipts(self.path)
        self.digests |= {kept.path: kept.sha256 for kept in self._kept if kept.sha256}
        self.problems += [Finding(kept.path, kept.problem) for kept in self._kept if kept.problem]
        self._made = _made(self._kept)
        self._clock()
        if MANIFEST_NAME not in self._made:
            damaged = "a receipt that may tell of it is damaged, or missing"
            why = damaged if self.problems else "no receipt tells of it" if self._kept else "the bundle has no receipts"
            self.notes.append(Finding(MANIFEST_NAME, f"is vouched for by nobody: {why}"))

    def _clock(self) -> None:
        """A receipt that is older than the one before it was written with a clock that was wrong, or made up."""
        whole = [(kept.path, datetime.fromisoformat(kept.receipt.created)) for kept in self._kept if kept.receipt]
        for (earlier, first), (name, second) in pairwise(whole):
            if second < first - _CLOCKS_DIFFER:
                self.notes.append(Finding(name, f"is dated before {earlier}: a clock was wrong"))

    def manifest(self) -> None:
        file = self.path / MANIFEST_NAME
        if self._kept and not file.is_file():
            self.problems.append(Finding(MANIFEST_NAME, "is missing"))
            return
        try:
            self.found_manifest = read_manifest(self.path)
        except BundleError as error:
            if not self._kept:
                raise
            self.problems.append(Finding(MANIFEST_NAME, f"can't be read: {error.what}"))
            return
        self.digests[MANIFEST_NAME] = hash_file(file)
        self._compare(MANIFEST_NAME)

    def files(self) -> None:
        """Those that the manifest lists, and those that only receipts tell of."""
        listed: Mapping[str, FileEntry] = {} if self.found_manifest is None else self.found_manifest.files
        known = {MANIFEST_NAME, *listed}
        only_made = [name for name in self._made if name not in known and not _is_engine(name)]
        present = [name for name in (*listed, *only_made) if self._is_there(name)]
        with ThreadPoolExecutor(_THREADS) as pool:
            self.digests |= dict(zip(present, pool.map(lambda name: hash_file(self.path / name), present), strict=True))
        for name in present:
            entry, found, expected = listed.get(name), self.digests[name], self._made.get(name, ("", ""))[0]
            if entry is not None and found not in (entry.sha256, expected):  # else the manifest is what was altered
                self.problems.append(Finding(name, _differs("the manifest", entry.sha256, found)))
            else:
                self._compare(name)
        self._external_data(listed)

    def engines(self) -> None:
        """Engines prove themselves; a receipt tells whether they are those that were built."""
        folder = self.path / ENGINES
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            name = file.relative_to(self.path).as_posix()
            if not file.is_file() or file.name.startswith("."):  # what is being written, and locks
                continue
            if file.suffix not in _SEALED or file.parent != folder:
                self.notes.append(Finding(name, "is vouched for by nobody: it is another program's cache"))
                continue
            self._sealed(file, name)
        for name in self._made:
            if _is_engine(name) and not (self.path / name).exists():
                self.notes.append(Finding(name, f"is gone; {self._made[name][1]} says that it was built"))

    def unlisted(self) -> None:
        """What nobody lists does no harm, but is not the bundle's."""
        listed = {MANIFEST_NAME, *self.digests, *(() if self.found_manifest is None else self.found_manifest.files)}
        listed |= {found.path for found in (*self.problems, *self.notes)}
        for file in sorted(self.path.rglob("*")):
            name = file.relative_to(self.path).as_posix()
            if (file.is_symlink() or not file.is_dir()) and name not in listed and not _TEMPORARY.search(name):
                self.notes.append(Finding(name, "is vouched for by nobody"))

    def _sealed(self, file: Path, name: str) -> None:
        try:
            about, _ = read_sealed(file)
            self.digests[name] = read_document(file)[1].sha256
        except BrokenSealError as error:
            self.problems.append(Finding(name, f"is damaged: {error}"))
            return
        except OSError as error:
            self.problems.append(Finding(name, f"can't be read: {error.strerror}"))
            return
        self._compare(name)
        if file.suffix == ".engine" and self._kept and name not in self._made:
            self.notes.append(Finding(name, "is whole, but no receipt tells that it was built"))
        plan = self.digests.get(name.removesuffix(".verdict"))
        if file.suffix == ".verdict" and plan is not None and about.get("engine_sha256") != plan:
            self.notes.append(Finding(name, "is not about the engine beside it: it counts for nothing"))

    def _is_there(self, name: str) -> bool:
        file = self.path / name
        if not os.path.exists(file):  # noqa: PTH110  # Path's raises for a name that is too long
            self.problems.append(Finding(name, "is missing"))
        elif not file.is_file() or not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self.path)):
            self.problems.append(Finding(name, "leads out of the bundle, or is no file"))
        else:
            return True
        return False

    def _compare(self, name: str) -> None:
        """With the receipt that tells of it."""
        expected, receipt = self._made.get(name, ("", ""))
        if expected and expected != self.digests[name]:
            found = _differs(receipt, expected, self.digests[name])
            self.problems.append(Finding(name, f"{found}: altered, or changed with --no-receipt"))

    def _external_data(self, listed: Mapping[str, FileEntry]) -> None:
        """A graph must not read weights from a file that nobody checks."""
        if self.found_manifest is None or any(finding.path in listed for finding in self.problems):
            return
        try:
            check_files(self.path, self.found_manifest, verify=False)
        except BundleError as error:
            name = Path(error.path or "").relative_to(self.path).as_posix() if error.path else MANIFEST_NAME
            self.problems.append(Finding(name, error.what))


def _made(kept: tuple[Kept, ...]) -> dict[str, tuple[str, str]]:
    """For each file its hash by the latest receipt that made it, and that receipt.

    What was made before a receipt that is damaged, or missing, may have been made again then: nothing is said of it.
    """
    found: dict[str, tuple[str, str]] = {}
    for each in kept:
        if each.problem:
            found.clear()
        if each.receipt is not None:
            outputs = each.receipt.outputs.items()
            found |= {name: (digest, each.path) for name, digest in outputs if not name.startswith(ELSEWHERE)}
    return found


def _is_engine(name: str) -> bool:
    return name.startswith(f"{ENGINES}/")


def _differs(by: str, expected: str, found: str) -> str:
    return f"is not what {by} says: SHA-256 {expected[:16]}… is recorded, found {found[:16]}…"
