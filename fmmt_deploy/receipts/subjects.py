"""What in a bundle receipts name, and whether it is still the same; nothing large is read for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fmmt_deploy.bundle.external_data import external_data_locations
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.sealed import BrokenSealError, read_document
from fmmt_deploy.bundle.store import Bundle

__all__ = ["ELSEWHERE", "changed", "graph_subjects", "sha256_now"]

ELSEWHERE = "cache:"
"""Begins the name of an engine that is not kept in the bundle; no path in a bundle has a colon."""

_SEALED = "engines/"


def graph_subjects(bundle: Bundle, precisions: Precisions) -> dict[str, str]:
    """Graphs with their weights, by path: the SHA-256 that the manifest lists.

    Raises:
        BundleError: The bundle has no such graph.
    """
    found = {}
    for graph, precision in precisions.items():
        path = bundle.graph(graph, precision)
        for file in (path, *(path.parent / location for location in sorted(external_data_locations(path)))):
            relative = file.relative_to(bundle.path).as_posix()
            found[relative] = bundle.manifest.files[relative].sha256
    return found


def sha256_now(bundle: Bundle, relative: str) -> str | None:
    """The hash that a bundle's manifest, or an engine's seal, says a file has; of others, such as receipts, it is made.

    Returns:
        None where there is no such file, or none that is whole as far as can be told without reading all of it.
    """
    path = bundle.path / relative
    try:
        if not path.is_file() or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(bundle.path)):
            return None
        if (entry := bundle.manifest.files.get(relative)) is not None:
            return entry.sha256 if path.stat().st_size == entry.size_bytes else None
        return read_document(path)[1].sha256 if relative.startswith(_SEALED) else hash_file(path)
    except (OSError, BrokenSealError):
        return None


def changed(bundle: Bundle, hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Which of some files are others now, or gone; of what is not kept in the bundle nothing is known."""
    inside = {name: digest for name, digest in hashes.items() if not name.startswith(ELSEWHERE)}
    return tuple(name for name, digest in inside.items() if sha256_now(bundle, name) != digest)
