"""A bundle's self-test run again with ONNX Runtime: does every graph still answer as PyTorch did when it was made?

Needs neither data nor PyTorch. Each graph is given the reference's own inputs, so that what is wrong is where it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.selftest import Stage, self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.ort.load import engine_from_onnx
from fmmt_deploy.errors import BundleError, PrecisionError
from fmmt_deploy.parity.report import ParityReport
from fmmt_deploy.parity.run import compare_graph
from fmmt_deploy.types import GraphName

__all__ = ["Replayed", "replay"]

State: TypeAlias = Literal["passed", "failed", "not computed"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one graph answered.

    Attributes:
        graph: Which.
        precision: Which.
        report: The comparison; None where ONNX Runtime does not compute it on this CPU.
        why: The reason for that, or "".
    """

    graph: GraphName
    precision: Precision
    report: ParityReport | None
    why: str = ""

    @property
    def state(self) -> State:
        """In a word."""
        if self.report is None:
            return "not computed"
        return "passed" if self.report.passed else "failed"


def replay(bundle: Bundle, threads: int) -> Iterator[Replayed]:
    """Runs every graph in every precision, one at a time.

    Args:
        bundle: The bundle.
        threads: To compute with.

    Yields:
        What each answered, as soon as it did.

    Raises:
        BundleError: The bundle has no self-test.
        EnvironmentProblem: ONNX Runtime is missing.
    """
    stages = self_test_of(bundle)
    for graph, files in bundle.manifest.graphs.items():
        for precision in files:
            yield _replayed(bundle, graph, precision, stages[graph], threads)


def _replayed(bundle: Bundle, graph: GraphName, precision: Precision, stage: Stage, threads: int) -> Replayed:
    try:
        engine = engine_from_onnx(graph, bundle.graph(graph, precision), threads)
    except (BundleError, PrecisionError) as error:
        return Replayed(graph, precision, None, " ".join((error.why or error.what).split()))
    try:
        return Replayed(graph, precision, compare_graph(graph, engine, stage, precision))
    finally:
        engine.close()
