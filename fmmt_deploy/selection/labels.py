"""Where labels of a plot go: beside their points, on no other label and no point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, radians, sin

__all__ = ["Box", "placed_labels"]

_DISTANCES = (7.0, 12.0, 18.0, 25.0, 33.0, 42.0, 52.0)
_ANGLES = (0, 180, 90, 270, 35, 145, 325, 215, 60, 120, 300, 240, 15, 165, 345, 195, 75, 105, 285, 255)
"""Degrees from the right, the best first: beside a point rather than above it."""

_MARKER = 4.0
"""Half the width of a point."""

_NOTHING = 1e-3
"""The area below which boxes only touch."""

_TRIALS = 100_000
"""Of places, before labels may cover something: a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, with y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """The area that the other does not cover."""
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(other)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a label may stand."""

    offset: tuple[float, float]
    box: Box


def placed_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box
) -> list[tuple[float, float]]:
    """Places labels so that none covers a point, another label or the frame's edge, each as near as can be.

    The places of each are tried from the nearest on, and where one label finds none left, those before it move on.
    After so many trials, or where there is no such arrangement, each covers the least that it can, one after the other.

    Args:
        points: x and y of each.
        sizes: Width and height of each one's label.
        frame: In which labels stay.

    Returns:
        The middle of each label, relative to its point.
    """
    marks = [Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    choices = [
        [_Place((dx, dy), _box(x + dx, y + dy, size)) for dx, dy in _offsets(size)]
        for (x, y), size in zip(points, sizes, strict=True)
    ]
    return [place.offset for place in _apart(choices, marks, frame) or _least_covering(choices, marks, frame)]


def _apart(choices: Sequence[Sequence[_Place]], marks: Sequence[Box], frame: Box) -> list[_Place] | None:
    """A place for each on which nothing else stands, found depth first, or `None`."""
    free = [[place for place in places if _covered(place.box, marks, frame) < _NOTHING] for places in choices]
    found: list[_Place] = []
    untried = [iter(places) for places in free]
    for _ in range(_TRIALS):
        if len(found) == len(free):
            return found
        place = next(untried[len(found)], None)
        if place is None:  # the one before it stands in the way
            untried[len(found)] = iter(free[len(found)])
            if not found:
                return None
            found.pop()
        elif all(place.box.overlap(other.box) < _NOTHING for other in found):
            found.append(place)
    return None


def _least_covering(choices: Sequence[Sequence[_Place]], marks: Sequence[Box], frame: Box) -> list[_Place]:
    """One after the other where it covers the least, and of those places the nearest."""
    found: list[_Place] = []
    for places in choices:
        taken = [*marks, *(place.box for place in found)]
        found.append(min(places, key=lambda place: round(_covered(place.box, taken, frame), 3)))
    return found


def _covered(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """The area that a label would hide, what is cut off of it counted twice."""
    return sum(box.overlap(other) for other in taken) + 2 * box.outside(frame)


def _offsets(size: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Where the middle of a label may be, so that its nearest edge is at a distance from the point."""
    for distance in _DISTANCES:
        for angle in _ANGLES:
            across, up = cos(radians(angle)), sin(radians(angle))
            yield across * (distance + size[0] / 2), up * (distance + size[1] / 2)


def _box(x: float, y: float, size: tuple[float, float]) -> Box:
    return Box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
