"""A stochastic reference: what its own F1 does from seed to seed, and whether an engine, or a paper, lies within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fmmt_deploy.errors import DataError
from fmmt_deploy.evaluation.words import counted, points
from fmmt_deploy.student import student_quantile

__all__ = ["Band", "reference_band"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Band:
    """Where the reference's weighted F1 lies with another seed, 0 to 1.

    Attributes:
        seeds: Over how many it was seen.
        mean: The reference's.
        deviation: Sample standard deviation over the seeds.
        lowest: The lowest of them.
        highest: The highest.
        low: A new seed's F1 lies between this …
        high: … and this; a prediction interval by Student's t: mean ± t · deviation · √(1 + 1 / seeds).
        confidence: Of that.
        values: The reference's, by seed.
        engine_values: The engine's, by seed.
        engine_mean: Their mean.
        passed: Whether that lies in the band.
        published: A figure from elsewhere, if one was given.
        published_inside: Whether that lies in the band.
    """

    seeds: int
    mean: float
    deviation: float
    lowest: float
    highest: float
    low: float
    high: float
    confidence: float
    values: tuple[float, ...]
    engine_values: tuple[float, ...]
    engine_mean: float
    passed: bool
    published: float | None
    published_inside: bool | None

    @property
    def words(self) -> str:
        """What it says, for somebody who reads a single figure elsewhere."""
        seen = (
            f"Over {counted(self.seeds, 'seed')} of the noise the reference's weighted F1 is {points(self.mean)} on "
            f"average (standard deviation {points(self.deviation)}, {points(self.lowest)} to {points(self.highest)})."
        )
        edges = f"between {points(self.low)} and {points(self.high)}"
        band = f"Another seed would give one {edges} ({100 * self.confidence:g} % prediction interval)."
        if self.lowest == self.highest:
            band = "No seed changed it, so that the band has no width."
        where = "inside that band: PASS" if self.passed else "outside that band"
        engine = (
            f"The engine's mean over the same seeds, {points(self.engine_mean)}, lies {where}. That is a coarse check: "
            "the verdict rests on the difference under the same noise."
        )
        return " ".join([seen, band, engine, *self._published_words()])

    def _published_words(self) -> list[str]:
        if self.published is None:
            return []
        if self.published_inside:
            return [
                f"{points(self.published)}, as published, lies inside it, too: one run of this reference can give "
                "that figure."
            ]
        return [
            f"{points(self.published)}, as published, lies outside it: by another seed alone, this reference on these "
            "data would do that in 1 of 20 cases."
        ]

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return asdict(self) | {"words": self.words}


def reference_band(values: Sequence[float], engine_values: Sequence[float], published: float | None = None) -> Band:
    """The reference's band over its own seeds.

    A single seed's F1, such as a paper has, is one draw from what a seed can give; so the band is a prediction interval
    for one further draw, not a confidence interval of the mean. It takes F1 over seeds as normal.

    Args:
        values: The reference's weighted F1, one for each seed.
        engine_values: The engine's, with the same seeds.
        published: A figure to be placed, 0 to 1.

    Raises:
        DataError: There are fewer than two seeds, or not as many on both sides.
    """
    seeds = len(values)
    if seeds < 2 or len(engine_values) != seeds:
        raise DataError(
            f"A band needs two seeds or more, the same on both sides, found {seeds} and {len(engine_values)}.",
            fix="Add --seeds 5.",
        )
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_quantile((1 + CONFIDENCE) / 2, seeds - 1) * deviation * math.sqrt(1 + 1 / seeds)
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    engine_mean = float(np.mean(engine_values))

    def inside(value: float) -> bool:
        return low - 1e-12 <= value <= high + 1e-12  # a mean of equal values is not quite these

    return Band(
        seeds=seeds,
        mean=mean,
        deviation=deviation,
        lowest=min(values),
        highest=max(values),
        low=low,
        high=high,
        confidence=CONFIDENCE,
        values=tuple(values),
        engine_values=tuple(engine_values),
        engine_mean=engine_mean,
        passed=inside(engine_mean),
        published=published,
        published_inside=None if published is None else inside(published),
    )
