"""Optimisation profiles: for each graph, which sizes its engine accepts and which it is fastest at.

A profile file is TOML with one table for each optimisation profile of a graph, in which each of the graph's dimensions
has its smallest, usual and largest size:

```toml
[[plm]]
dialogues = [1, 1, 1]
tokens = [2, 128, 512]
```
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.errors import BundleError, UsageError
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = [
    "DIMENSIONS",
    "TOKEN_MULTIPLE",
    "Profile",
    "Profiles",
    "Range",
    "Shapes",
    "default_profiles",
    "profiles_from_toml",
    "read_profiles",
    "shapes_of",
    "toml_from_profiles",
    "usual_sizes",
]

DIMENSIONS: Mapping[GraphName, tuple[str, ...]] = {
    "swin": ("faces",),
    "plm": ("dialogues", "tokens"),
    "fusion": ("utterances", "dialogues", "tokens", "faces"),
    "unimodal": ("utterances",),
}
"""The dimensions of each graph that may vary; `faces` of `fusion` are all faces of its utterances, packed."""

TOKEN_MULTIPLE = 32
"""Texts are padded to this, so that shapes come again and can be CUDA graphs (TensorRT-RTX compiles for each, too): it
makes a tenth more of the text's work, which is a twentieth of all."""

_PADDED = ("audio", "vision", "audio_length", "vision_length", "audio_positions", "vision_positions")
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Range:
    """Sizes of one dimension: the smallest, the one to be fastest at, the largest."""

    min: int
    opt: int
    max: int

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.min <= size <= self.max


Profile: TypeAlias = Mapping[str, Range]
"""One optimisation profile: a range for each of a graph's dimensions."""

Shapes: TypeAlias = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""For each input its smallest, usual and largest shape."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """The optimisation profiles of a model's graphs.

    Attributes:
        source: The file they are from, for messages.
        graphs: For each graph, one profile or more.
    """

    source: str
    graphs: Mapping[GraphName, tuple[Profile, ...]]

    def of(self, graph: GraphName) -> tuple[Profile, ...]:
        """A graph's profiles.

        Raises:
            UsageError: There is none.
        """
        if graph not in self.graphs:
            raise UsageError(
                f"{self.source} has no profile for {graph}.",
                fix=f"Add a table [[{graph}]] with {' and '.join(DIMENSIONS[graph])}.",
                path=self.source,
            )
        return self.graphs[graph]


def default_profiles(architecture: Architecture) -> Profiles:
    """What an engine accepts if nothing is said: batches of up to 32, 64 faces, and whatever length of text.

    Args:
        architecture: Whose graphs; the longest text is its language model's.
    """
    utterances, dialogues = Range(1, 8, _BATCH), Range(1, 1, _BATCH)
    graphs: dict[GraphName, tuple[Profile, ...]] = {}
    if architecture.plm is not None and architecture.fusion is not None:
        longest = architecture.plm.max_tokens
        tokens = Range(min(2, longest), min(128, longest), longest)
        packed = _BATCH * architecture.vision_length
        graphs["swin"] = ({"faces": Range(1, 8, 64)},)
        graphs["plm"] = ({"dialogues": dialogues, "tokens": tokens},)
        faces = Range(1, min(64, packed), packed)
        graphs["fusion"] = ({"utterances": utterances, "dialogues": dialogues, "tokens": tokens, "faces": faces},)
    else:
        graphs["unimodal"] = ({"utterances": utterances},)
    return Profiles("the default profile", graphs)


def read_profiles(path: Path, architecture: Architecture) -> Profiles:
    """Reads a profile file; graphs that the model does not have are checked too, and left out.

    Raises:
        UsageError: It can't be read, or something in it is unknown or impossible.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The profile {path} can't be read.", why=str(error), fix="Give a TOML file.") from error
    return profiles_from_toml(text, architecture, str(path))


def profiles_from_toml(text: str, architecture: Architecture, source: str) -> Profiles:
    """Reads the text of a profile file.

    Args:
        text: TOML.
        architecture: The model, for the longest text it has positions for.
        source: Where the text is from, for messages.

    Raises:
        UsageError: Something in it is unknown or impossible; the message names the key.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"The profile {source} is not TOML.",
            why=str(error),
            fix="See engines/README.md for the format.",
            path=source,
        ) from error
    longest = None if architecture.plm is None else architecture.plm.max_tokens
    graphs: dict[GraphName, tuple[Profile, ...]] = {}
    for name, tables in values.items():
        graph = next((graph for graph in GRAPHS if graph == name), None)
        if graph is None:
            raise _wrong(source, name, f"is no graph; known are {', '.join(GRAPHS)}")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise _wrong(source, name, f"should be one table or more, each begun by [[{name}]]")
        graphs[graph] = tuple(
            _profile(graph, table, longest, source, f"{name}[{number}]") for number, table in enumerate(tables)
        )
    if not graphs:
        raise _wrong(source, "the whole file", f"should have tables such as [[swin]], [[{GRAPHS[1]}]]")
    wanted = graphs_of(architecture)
    return Profiles(source, {graph: profiles for graph, profiles in graphs.items() if graph in wanted})


def toml_from_profiles(profiles: Profiles, comment: str = "") -> str:
    """The text of a profile file, which `profiles_from_toml` reads back as the same.

    Args:
        profiles: What to write.
        comment: Lines to put first; each gets its `#`.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for graph, each in profiles.graphs.items():
        for profile in each:
            lines += [""] * bool(lines) + [f"[[{graph}]]"]
            lines += [f"{name} = [{sizes.min}, {sizes.opt}, {sizes.max}]" for name, sizes in profile.items()]
    return "\n".join(lines) + "\n"


def usual_sizes(profile: Profile) -> dict[str, int]:
    """The usual size of each dimension."""
    return {name: sizes.opt for name, sizes in profile.items()}


def shapes_of(path: Path, profile: Profile) -> Shapes:
    """What a profile means for each input of a graph.

    Args:
        path: The ONNX file; its weights are not read.
        profile: A range for each named dimension of its inputs.

    Raises:
        BundleError: The graph has a dimension that the profile does not have: it is of another version of ours.
    """
    import onnx

    def shape(axes: Iterable[onnx.TensorShapeProto.Dimension], which: str) -> tuple[int, ...]:
        return tuple(getattr(profile[axis.dim_param], which) if axis.dim_param else axis.dim_value for axis in axes)

    shapes = {}
    for value in onnx.load(path, load_external_data=False).graph.input:
        axes = value.type.tensor_type.shape.dim
        for axis in axes:
            if axis.dim_param and axis.dim_param not in profile:
                raise BundleError(
                    f"{path} has a dimension {axis.dim_param!r} of {value.name}; known are {', '.join(profile)}.",
                    fix="Export the bundle again with this version.",
                    path=path,
                    tensor=value.name,
                )
        shapes[value.name] = (shape(axes, "min"), shape(axes, "opt"), shape(axes, "max"))
    return shapes


def _profile(graph: GraphName, table: Mapping[str, object], longest: int | None, source: str, where: str) -> Profile:
    for name in table:
        if name in _PADDED and name not in DIMENSIONS[graph]:
            raise _wrong(
                source, f"{where}.{name}", "can't vary: audio and vision keep their padded length, see docs/numerics.md"
            )
        if name not in DIMENSIONS[graph]:
            raise _wrong(source, f"{where}.{name}", f"is no dimension of {graph}: {', '.join(DIMENSIONS[graph])}")
    for name in DIMENSIONS[graph]:
        if name not in table:
            raise _wrong(source, f"{where}.{name}", "is missing")
    profile = {name: _range(table[name], source, f"{where}.{name}") for name in DIMENSIONS[graph]}
    if longest is not None and "tokens" in profile and profile["tokens"].max > longest:
        raise _wrong(source, f"{where}.tokens", f"is at most {longest}: the model has no positions for more")
    return profile


def _range(value: object, source: str, where: str) -> Range:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise _wrong(source, where, "should be three whole numbers: [smallest, usual, largest]")
    smallest, usual, largest = numbers
    if not 1 <= smallest <= usual <= largest < 2**31:
        raise _wrong(source, where, f"should be 1 ≤ smallest ≤ usual ≤ largest, found {numbers}")
    return Range(smallest, usual, largest)


def _wrong(source: str, where: str, what: str) -> UsageError:
    return UsageError(
        f"The profile {source}: {where} {what}.", fix="See engines/README.md for the format.", path=source
    )
