"""Calibrates a bundle's graphs on data: once through them for statistics, once more for tensors that are smoothed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.choosing import Choices, calibration_from_statistics, tried_choices
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.collection import (
    SavedProgress,
    clear_progress,
    collect_statistics,
    inputs_digest,
    place_of_progress,
)
from fmmt_deploy.calibration.draft import draft_from_onnx
from fmmt_deploy.calibration.formats import EightBits, eight_bits_of
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.calibration.scales import Calibration
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.types import GraphName

__all__ = ["Calibrated", "Calibrator"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One graph's calibration for one type of operands, and what it was made from.

    Attributes:
        calibration: It.
        operands: The type.
        statistics: Of all tensors that products read, not smoothed.
        smoothed: Of those that are smoothed; None if none is.
        choices: What was tried.
    """

    calibration: Calibration
    operands: EightBits
    statistics: GraphStatistics
    smoothed: GraphStatistics | None
    choices: Choices


class Calibrator:
    """Calibrates graphs when they are asked for; each pass over the data is made at most once, and saved.

    Args:
        bundle: Whose float32 graphs.
        graphs: Those that will be asked for, in one pass.
        cases: Gives the data's batches without so many first ones; see `observe_graphs`.
        data: What identifies the data, for taking up an interrupted calibration.
        settings: How to calibrate.
        threads: To compute with.
        beside: What is saved meanwhile is beside this; default the bundle.
        status: Told what is going on.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: Sequence[GraphName],
        cases: Callable[[int], Iterable[CaseInputs]],
        data: str,
        settings: CalibrationSettings,
        threads: int,
        *,
        beside: Path | None = None,
        status: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bundle, self.graphs, self._cases, self._data = bundle, tuple(graphs), cases, data
        self._settings, self._threads, self._status = settings, threads, status
        self._place = (beside or bundle.path).resolve()  # "." has no name, and is gone once the bundle is written
        self._statistics: Mapping[GraphName, GraphStatistics] | None = None
        self._known: dict[tuple[GraphName, EightBits], Calibrated] = {}

    def __call__(self, graph: GraphName, precision: Precision) -> Calibration:
        """One graph's calibration for a precision of 8 bits; see `calibrated`."""
        return self.calibrated(graph, precision).calibration

    def calibrated(self, graph: GraphName, precision: Precision) -> Calibrated:
        """One graph's calibration, with what it was made from.

        Raises:
            DataError: An input is not finite, or a tensor was never anything but zero.
            PrecisionError: A graph computes something that is not finite, or has no product for 8 bits.
            EnvironmentProblem: Progress can't be saved.
        """
        operands = eight_bits_of(precision)
        if (graph, operands) not in self._known:
            self._known[graph, operands] = self._calibrated(graph, operands)
        return self._known[graph, operands]

    def finish(self) -> None:
        """Removes what was saved: it is all in a bundle now."""
        clear_progress(self._place)

    def statistics(self, graph: GraphName) -> GraphStatistics:
        """What was seen of one graph, not smoothed; errors as of `calibrated`."""
        if self._statistics is None:
            self._status("collecting what products read, on float32 graphs")
            self._statistics = self._collected("all", {name: {} for name in self.graphs})
        return self._statistics[graph]

    def _calibrated(self, graph: GraphName, operands: EightBits) -> Calibrated:
        statistics, settings = self.statistics(graph), self._settings
        weights = draft_from_onnx(graph, self._bundle.graph(graph)).weights
        self._status(f"{graph} {operands}: choosing scales")
        choices = tried_choices(statistics, weights, settings, operands)
        factors = {name: choice.smoothing for name, choice in choices.items() if choice.smoothing is not None}
        smoothed = None
        if factors:
            self._status(f"{graph} {operands}: collecting {len(factors)} smoothed tensors")
            smoothed = self._collected(f"{graph}-{operands}", {graph: factors})[graph]
        calibration = calibration_from_statistics(statistics, smoothed, choices, weights, settings, operands)
        return Calibrated(calibration, operands, statistics, smoothed, choices)

    def _collected(
        self, part: str, smoothing: Mapping[GraphName, Mapping[str, Floats]]
    ) -> dict[GraphName, GraphStatistics]:
        digests = {
            graph: {name: sha256(factors.tobytes()).hexdigest() for name, factors in by_name.items()}
            for graph, by_name in smoothing.items()
        }
        digest = inputs_digest(self._bundle, self._data, {"seed": self._settings.seed, "smoothing": digests})
        progress = SavedProgress(place_of_progress(self._place, part), digest)
        return collect_statistics(
            self._bundle,
            smoothing,
            self._cases,
            self._threads,
            seed=self._settings.seed,
            progress=progress,
            status=self._status,
        )
