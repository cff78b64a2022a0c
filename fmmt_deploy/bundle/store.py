"""Opening a bundle, which checks every byte of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.atomic import locked, recover
from fmmt_deploy.bundle.integrity import check_files
from fmmt_deploy.bundle.manifest import Manifest, Precision, read_manifest
from fmmt_deploy.bundle.precisions import adding_command
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from fmmt_deploy.names import GraphName

__all__ = ["Bundle"]

_EXPORT_AGAIN = "Copy the bundle again, or export it again with `fmmt export`."


class Bundle:
    """A directory of graphs and what belongs to them, opened and checked.

    Attributes:
        path: The directory.
        manifest: What is in it.

    A bundle that is replaced while it is open should be opened again: its paths then lead to the new files.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> Self:
        """Opens a bundle, after putting back one whose replacement was killed half-way.

        Args:
            path: The directory.
            verify: Whether to compute the SHA-256 of every listed file; existence and sizes are checked in any case.

        Raises:
            BundleError: Something is missing, altered, unlisted, leads out of the bundle, or is of another schema.
            EnvironmentProblem: It can't be read.
        """
        return cls._opened(path, lambda manifest: check_files(path, manifest, verify))

    @classmethod
    def peek(cls, path: Path) -> Self:
        """Opens a bundle for its manifest; whether its files are there is for whoever reads them.

        Raises:
            BundleError: There is none, or its manifest is not valid.
            EnvironmentProblem: It can't be read.
        """
        return cls._opened(path, lambda _: None)

    @classmethod
    def _opened(cls, path: Path, check: Callable[[Manifest], None]) -> Self:
        try:
            return cls._open(path, check)
        except OSError as error:
            raise EnvironmentProblem(
                f"The bundle {path} can't be read.", why=str(error), fix="Check its permissions.", path=path
            ) from error

    @classmethod
    def _open(cls, path: Path, check: Callable[[Manifest], None]) -> Self:
        before = _identity(path)
        if before is None:
            before = _recovered(path)
        try:
            manifest = read_manifest(path)
            check(manifest)
        except (BundleError, OSError):
            if _identity(path) == before:
                raise
            return cls._open(path, check)  # it was replaced while we read it
        return cls(path, manifest)

    @property
    def architecture(self) -> Architecture:
        """The model's sizes, and what it reads."""
        return self.manifest.architecture

    def tokenizer_json(self) -> str | None:
        """The text of `tokenizer.json`, where the model reads text."""
        name = self.manifest.tokenizer
        return None if name is None else self.file(name).read_text(encoding="utf-8")

    def graph(self, name: GraphName, precision: Precision = "fp32") -> Path:
        """The ONNX file of a graph.

        Raises:
            BundleError: The bundle has no such graph, or not of this precision.
        """
        files = self.manifest.graphs.get(name)
        if files is None:
            raise BundleError(
                f"The bundle {self.path} has no graph {name}; it has {', '.join(self.manifest.graphs)}.",
                why=f"Its model is of modality {self.manifest.architecture.modality}.",
                fix="Use a bundle of the other kind.",
                path=self.path,
            )
        if precision not in files:
            raise BundleError(
                f"The bundle {self.path} has no {precision} graph of {name}; it has {', '.join(files)}.",
                fix=f"Ask for one it has, or add it: {adding_command(self.path, [name], precision)}",
                path=self.path,
            )
        return self.file(files[precision])

    def file(self, relative: str) -> Path:
        """A listed file's place.

        Raises:
            BundleError: It is not listed in the manifest.
        """
        if relative not in self.manifest.files:
            raise BundleError(
                f"The bundle {self.path} lists no file {ascii(relative)[1:-1]}.", fix=_EXPORT_AGAIN, path=self.path
            )
        return self.path / relative


def _identity(path: Path) -> tuple[int, int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns  # numbers of inodes are used again


def _recovered(path: Path) -> tuple[int, int, int] | None:
    target = Path(os.path.realpath(path))
    if target.parent.is_dir():
        with locked(target.parent):
            recover(target)
            return _identity(target)
    return None
