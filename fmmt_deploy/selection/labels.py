"""Where labels of a plot go: beside their points, on no other label and no point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, radians, sin

__all__ = ["Box", "placed_labels"]

_DISTANCES = (7.0, 12.0, 18.0, 25.0, 33.0, 42.0)
_ANGLES = (0, 180, 90, 270, 35, 145, 325, 215, 60, 120, 300, 240)
"""Degrees from the right, the best first: beside a point rather than above it."""

_MARKER = 4.0
"""Half the width of a point."""


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


def placed_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box
) -> list[tuple[float, float]]:
    """Places one label after the other where it covers the least, and of those places at the nearest.

    Args:
        points: x and y of each.
        sizes: Width and height of each one's label.
        frame: In which labels stay.

    Returns:
        The middle of each label, relative to its point.
    """
    taken = [Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    found = []
    for (x, y), size in zip(points, sizes, strict=True):
        offsets = list(_offsets(size))
        boxes = [_box(x + dx, y + dy, size) for dx, dy in offsets]
        covered = [sum(box.overlap(other) for other in taken) + 2 * box.outside(frame) for box in boxes]
        best = min(range(len(boxes)), key=lambda i: (round(covered[i], 3), i))
        taken.append(boxes[best])
        found.append(offsets[best])
    return found


def _offsets(size: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Where the middle of a label may be, so that its nearest edge is at a distance from the point."""
    for distance in _DISTANCES:
        for angle in _ANGLES:
            across, up = cos(radians(angle)), sin(radians(angle))
            yield across * (distance + size[0] / 2), up * (distance + size[1] / 2)


def _box(x: float, y: float, size: tuple[float, float]) -> Box:
    return Box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
