"""The sizes at which an engine is asked: all corners of its profiles, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeAlias

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.engines.protocol import Engine
from fmmt_deploy.engines.ranges import shape_ranges
from fmmt_deploy.parity.probes import DIMENSIONS, Sizes, sizes_of
from fmmt_deploy.types import GraphName

__all__ = ["Corners", "Span", "corners_of"]

Span: TypeAlias = tuple[int, int, int]
"""Smallest, usual and largest size of a dimension."""

_ROW_COUNTS = (2, 3, 7)
"""Batches to try beside the usual and the largest: kernels are made for powers of two, and tried at them."""

_USUAL_ROWS = 5
"""So many at least where rows change places; a profile's usual batch may be 1."""


@dataclass(frozen=True, slots=True)
class Corners:
    """The sizes that an engine takes.

    Attributes:
        rows: The dimension of the graph's rows.
        profiles: For each profile, each dimension's span.
    """

    rows: str
    profiles: tuple[Mapping[str, Span], ...]

    @property
    def widest(self) -> Mapping[str, Span]:
        """The profile that takes most rows."""
        return max(self.profiles, key=lambda profile: profile[self.rows][2])

    @property
    def usual(self) -> Sizes:
        """Usual sizes in the widest profile, with some rows."""
        smallest, rows, largest = self.widest[self.rows]
        sizes = {name: span[1] for name, span in self.widest.items()}
        return sizes | {self.rows: min(largest, max(smallest, rows, _USUAL_ROWS))}

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Batches to try in the widest profile, in ascending order."""
        smallest, usual, largest = self.widest[self.rows]
        return tuple(sorted({min(largest, max(smallest, count)) for count in (*_ROW_COUNTS, usual, largest)}))

    def __iter__(self) -> Iterator[Sizes]:
        """Every corner and the usual sizes of every profile, each once."""
        seen = set()
        for profile in self.profiles:
            corners = product(*((span[0], span[2]) for span in profile.values()))
            for corner in (*corners, tuple(span[1] for span in profile.values())):
                if corner not in seen:
                    seen.add(corner)
                    yield dict(zip(profile, corner, strict=True))

    def fitted(self, needed: Sizes) -> Sizes:
        """The smallest sizes that a profile takes and that are nowhere below those needed, which one takes."""
        fits = [
            {name: max(span[0], needed[name]) for name, span in profile.items()}
            for profile in self.profiles
            if all(needed[name] <= span[2] for name, span in profile.items())
        ]
        return min(fits, key=lambda sizes: prod(sizes.values()))


def corners_of(graph: GraphName, engine: Engine, architecture: Architecture) -> Corners:
    """An engine's profiles, or what is tried of one that takes everything.

    Args:
        graph: Which graph.
        engine: Its engine.
        architecture: The model's, for the longest text.
    """
    rows = next(iter(DIMENSIONS[graph]))
    ranges = shape_ranges(engine)
    if ranges is None:
        return Corners(rows, (_tried(graph, architecture),))
    profiles = []
    for profile in ranges:
        smallest, usual, largest = (
            sizes_of(graph, {name: shapes[which] for name, shapes in profile.items()}) for which in range(3)
        )
        profiles.append({name: (smallest[name], usual[name], largest[name]) for name in smallest})
    return Corners(rows, tuple(profiles))


def _tried(graph: GraphName, architecture: Architecture) -> Mapping[str, Span]:
    """Small, so that an engine on a CPU is done in seconds, and nowhere a power of two alone."""
    longest = architecture.plm.max_tokens if architecture.plm is not None else 1
    tokens = (min(2, longest), min(17, longest), min(41, longest))
    tried: Mapping[GraphName, Mapping[str, Span]] = {
        "swin": {"faces": (1, 5, 9)},
        "plm": {"dialogues": (1, 5, 6), "tokens": tokens},
        "fusion": {"utterances": (1, 5, 9), "dialogues": (1, 3, 5), "tokens": tokens, "faces": (1, 11, 70)},
        "unimodal": {"utterances": (1, 5, 9)},
    }
    return tried[graph]
