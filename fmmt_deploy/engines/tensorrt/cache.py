"""The engines of a bundle: each in a file that says what it was built from, by and for.

An engine is only good for the graph, profile, options, TensorRT and GPU that it was built with. All of these are in its
key, which is in its file in clear, before the plan: so whether it is the right one, and whole, is known before TensorRT
sees a byte of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fmmt_deploy.bundle.external_data import external_data_locations
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.sealed import BrokenSealError, read_document, read_sealed, write_sealed
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.flavour import FlavourName, title
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profile
from fmmt_deploy.engines.tensorrt.realised import Realised
from fmmt_deploy.engines.tensorrt.target import Target
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json
from fmmt_deploy.types import GraphName

__all__ = [
    "FOLDER",
    "SCHEMA",
    "EngineAbout",
    "EngineFile",
    "EngineKey",
    "Miss",
    "engine_folder",
    "engine_path",
    "find_engine",
    "find_runnable",
    "graph_sha256",
    "list_engines",
    "write_engine",
]

FOLDER = "engines"
"""Where a bundle keeps its engines; its manifest does not list them."""

SCHEMA = 2
"""Of the file, and of what `build` does alike for all: raised with either, so that no old engine is taken for new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        graph: Which graph it is.
        precision: The typed graph's precision.
        graph_sha256: Of that graph with its weights, see `graph_sha256`.
        profiles: Its optimisation profiles.
        options: How it was built.
        flavour: Which TensorRT.
        version: The full version of that.
        target: What it was built for.
    """

    graph: GraphName
    precision: Precision
    graph_sha256: str
    profiles: tuple[Profile, ...]
    options: BuildOptions
    flavour: FlavourName
    version: str
    target: Target

    @property
    def digest(self) -> str:
        """SHA-256 of the key as canonical JSON: sorted names, no spaces."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAbout:
    """What an engine file says of its plan.

    Attributes:
        schema: Version of this format.
        key: What it was built from, by and for.
        build_seconds: How long that took.
        flops_share: The share of matrix-product FLOPs in each precision, as the network that was built has it.
        realised: What the engine's own layers tell, where TensorRT listed them.
        created: When, ISO 8601; default now.
    """

    schema: int = SCHEMA
    key: EngineKey
    build_seconds: float
    flops_share: Mapping[Precision, float]
    realised: Realised | None = None
    created: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class EngineFile:
    """An engine that was found, or written.

    Attributes:
        path: Its file.
        about: What it says of itself.
        plan_bytes: The plan's size.
        plan: The plan, mapped, its hash checked; for TensorRT to deserialise.
    """

    path: Path
    about: EngineAbout
    plan_bytes: int
    plan: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Miss:
    """No engine fits: for each that is there for the same graph and precision, why it does not."""

    reasons: tuple[str, ...]


def graph_sha256(bundle: Bundle, graph: GraphName, precision: Precision) -> str:
    """SHA-256 over a graph's file and its external data, from the manifest, whose hashes opening the bundle checked.

    Raises:
        BundleError: The bundle has no such graph.
    """
    path = bundle.graph(graph, precision)
    folder = path.parent
    names = [path.name, *sorted(external_data_locations(path))]
    files = {name: bundle.manifest.files[(folder / name).relative_to(bundle.path).as_posix()].sha256 for name in names}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def engine_folder(bundle: Bundle, cache: Path | None = None) -> Path:
    """Where a bundle's engines are: in it, or in the folder given."""
    return bundle.path / FOLDER if cache is None else cache


def engine_path(folder: Path, key: EngineKey) -> Path:
    """Where the engine of a key is, or would be."""
    return folder / f"{key.graph}-{key.precision}-{key.digest[:16]}.engine"


def find_engine(folder: Path, key: EngineKey) -> EngineFile | Miss:
    """The engine of exactly this key, whole; or why each other engine of the same graph and precision is not it.

    Raises:
        OSError: The folder or a file can't be read.
    """
    path = engine_path(folder, key)
    return _first_fit(folder, [path] if path.is_file() else [], key, lambda found: _difference(found, key))


def find_runnable(folder: Path, key: EngineKey) -> EngineFile | Miss:
    """The best engine that may run here: of this key's graph, TensorRT and GPU, with whatever profile and options.

    The best has the highest optimisation level; among equals, the newest.

    Args:
        folder: Where engines are.
        key: What is wanted; its `target` is this machine's, its profiles and options don't matter.

    Raises:
        OSError: The folder or a file can't be read.
    """

    def rank(path: Path) -> tuple[int, str]:
        about = _about(path)
        return (0, "") if isinstance(about, str) else (about.key.options.optimization_level, about.created)

    ranked = sorted(_files(folder, key), key=rank, reverse=True)
    return _first_fit(folder, ranked, key, lambda found: _unfitness(found, key))


def list_engines(folder: Path) -> Iterator[tuple[Path, EngineAbout | str]]:
    """Every engine file of a folder with what it says of itself, or what is wrong with it; plans are not read.

    Raises:
        OSError: A file can't be read.
    """
    for path in sorted(folder.glob("*.engine")):
        yield path, _about(path)


def write_engine(folder: Path, about: EngineAbout, plan: memoryview) -> EngineFile:
    """Writes an engine file, all or nothing, and opens it.

    Raises:
        EnvironmentProblem: The disk is full, or the folder can't be written.
    """
    path = engine_path(folder, about.key)
    write_sealed(path, asdict(about), plan)
    return EngineFile(path, about, plan.nbytes, plan)


def _first_fit(folder: Path, paths: list[Path], key: EngineKey, unfit: Callable[[EngineKey], str]) -> EngineFile | Miss:
    reasons = {}
    for path in paths:
        about = _about(path)
        reason = about if isinstance(about, str) else unfit(about.key)
        if not reason and isinstance(about, EngineAbout):
            try:
                _, plan = read_sealed(path)
                return EngineFile(path, about, plan.nbytes, plan)
            except BrokenSealError as error:
                reason = str(error)
        reasons[path.name] = reason
    for path in _files(folder, key):
        if path.name not in reasons:
            about = _about(path)
            reasons[path.name] = (
                about if isinstance(about, str) else _difference(about.key, key) or "under another name"
            )
    return Miss(tuple(f"{name} is {reason}" for name, reason in reasons.items()))


def _files(folder: Path, key: EngineKey) -> list[Path]:
    """Of that graph and precision; `int8-fp32` begins like `int8`."""
    name = f"{key.graph}-{key.precision}"
    return sorted(p for p in folder.glob(f"{name}-*.engine") if p.stem.rpartition("-")[0] == name and p.is_file())


def _about(path: Path) -> EngineAbout | str:
    """What an engine file says of itself, or what is wrong with it."""
    try:
        values, _ = read_document(path)
        if values.get("schema") != SCHEMA:
            return "of another version of fmmt-deploy"
        return dataclass_from_json(EngineAbout, values)
    except BrokenSealError as error:
        return str(error)
    except JsonValueError as error:
        return f"of another version of fmmt-deploy ({error})"


def _unfitness(found: EngineKey, wanted: EngineKey) -> str:
    """Why an engine can't run here, or ""."""
    if found.flavour != wanted.flavour:
        return f"built by {title(found.flavour)}, this is {title(wanted.flavour)}"
    if found.version != wanted.version:
        return f"built by {title(found.flavour)} {found.version}, this is {wanted.version}"
    if not found.target.runs_on(wanted.target):
        return f"built for {found.target}, this is {wanted.target}"
    if found.graph_sha256 != wanted.graph_sha256:
        return f"built from another {found.precision} graph of {found.graph}"
    return ""


def _difference(found: EngineKey, wanted: EngineKey) -> str:
    """Why an engine is not the one that is wanted, or ""."""
    if reason := _unfitness(found, wanted):
        return reason
    if found.target != wanted.target:
        return f"built for {found.target}, wanted for {wanted.target}"
    if found.profiles != wanted.profiles:
        return "built with another profile"
    if found.options != wanted.options:
        return f"built with other options: {found.options}, wanted {wanted.options}"
    return "" if found == wanted else "built from something else"
