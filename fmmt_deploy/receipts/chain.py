"""The chain of evidence of a bundle: checkpoint → graph → typed graph → engine → parity → F1 → bench.

Read from the receipts and the manifest alone; no weight is hashed. What is said of a step is only what is sure: that it
is `stale` means that what it is about is no longer what the bundle holds, or that TensorRT's engines are of another
version than the one installed, which does not run them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.bundle.precisions import Precisions, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.engine_steps import engine_step
from fmmt_deploy.receipts.judged_steps import judged_steps
from fmmt_deploy.receipts.kept import read_receipts
from fmmt_deploy.receipts.lanes import FLAVOURS, Lane, lanes_of
from fmmt_deploy.receipts.making_steps import checkpoint_step, graph_step, typed_step
from fmmt_deploy.receipts.step import Step

__all__ = ["Chain", "chain_of"]


@dataclass(frozen=True, slots=True)
class Chain:
    """Every step, in order."""

    steps: tuple[Step, ...]

    @property
    def broken(self) -> tuple[Step, ...]:
        """The steps that are stale or failed."""
        return tuple(step for step in self.steps if step.state in ("stale", "failed"))

    def to_json(self) -> list[dict[str, object]]:
        """Plain values."""
        return [asdict(step) for step in self.steps]


def chain_of(bundle: Bundle) -> Chain:
    """The chain of a bundle, from its receipts.

    Args:
        bundle: It; its files need not have been checked.

    Raises:
        ArtefactError: A receipt is damaged, or missing in the middle.
        EnvironmentProblem: A receipt can't be read.
    """
    return Chain(tuple(_steps(bundle)))


def _steps(bundle: Bundle) -> Iterator[Step]:
    receipts = read_receipts(bundle.path)
    lanes = lanes_of(bundle, receipts)
    yield checkpoint_step(bundle, receipts)
    yield graph_step(bundle, receipts)
    for precision in PRECISIONS:
        graphs = [graph for graph, files in bundle.manifest.graphs.items() if precision in files]
        if precision != "fp32" and graphs:
            yield typed_step(bundle, receipts, precision, graphs)
            if not any(precision in lane.precisions.values() for lane in lanes):
                yield _unused(bundle, precision)
    for lane in lanes:
        if lane.engine in FLAVOURS:
            yield engine_step(bundle, receipts, lane)
        yield from judged_steps(bundle, receipts, lane)


def _unused(bundle: Bundle, precision: Precision) -> Step:
    """Typed graphs that nothing was made of, and nothing was said of."""
    has: Precisions = {g: precision if precision in files else "fp32" for g, files in bundle.manifest.graphs.items()}
    asked = f"-b {shlex.quote(str(bundle.path))} --precision {text_from_precisions(has)}"
    if precision == "int8-fp32":
        fix = f"fmmt parity {asked} --engine ort"
        return Step("parity", Lane("ort", has).name, "missing", "nothing was said of these graphs yet", next=fix)
    fix = f"fmmt build {asked} --engine trt"
    return Step("engine", precision, "missing", "no engine was built of these graphs", next=fix)
