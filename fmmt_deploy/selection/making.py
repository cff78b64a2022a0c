"""Engines of graphs that no bundle has: made in a scratch folder, opened, and the files forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeAlias

from fmmt_deploy.bundle.disk import check_room, disk_problems
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.draft import write_draft
from fmmt_deploy.calibration.formats import FORMATS
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.scales import Calibration
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.engines.protocol import Engine
from fmmt_deploy.types import GraphName

__all__ = ["Calibrations", "Maker", "emulated_maker"]

Calibrations: TypeAlias = Callable[[GraphName, Precision], Calibration]
"""Gives what was calibrated for a graph in a precision of 8 bits; raises UsageError where there is nothing."""


class Maker(Protocol):
    """Makes graphs in any precision, and opens them."""

    def __call__(self, graph: GraphName, precision: Precision, keep: Sequence[str] = ()) -> Engine:
        """An engine of a graph.

        Args:
            graph: Its name.
            precision: What its products are computed in.
            keep: Patterns of names of what is kept back; see `calibration.passes.draft_in`.

        Raises:
            PrecisionError: A weight does not fit the precision.
        """
        ...


def emulated_maker(bundle: Bundle, threads: int, calibrations: Calibrations, scratch: Path | None = None) -> Maker:
    """A maker of emulated engines of a bundle's graphs, which round as a GPU does.

    Args:
        bundle: The bundle; nothing in it is changed.
        threads: Threads within an operator.
        calibrations: For precisions of 8 bits.
        scratch: A folder on a disk with room for a graph's weights; default the system's.
    """

    def make(graph: GraphName, precision: Precision, keep: Sequence[str] = ()) -> Engine:
        path = bundle.graph(graph)
        if precision == "fp32":
            return engine_from_onnx(graph, path, threads)
        calibration = None if FORMATS[precision].operands is None else calibrations(graph, precision)
        draft = draft_in(graph, path, precision, keep, calibration)
        with TemporaryDirectory(dir=scratch, prefix="fmmt-") as folder:
            file = Path(folder) / f"{graph}.onnx"
            check_room(file, draft.size_bytes)
            with disk_problems(file, draft.size_bytes):
                write_draft(draft, file)
            return engine_from_onnx(graph, file, threads)

    return make
