"""Runs an engine and the reference on the same inputs, graph by graph and end to end, and compares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import text_from_precisions
from fmmt_deploy.bundle.selftest import Stage
from fmmt_deploy.engines.host import arrays_from_values, started_on_host
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.errors import UsageError
from fmmt_deploy.parity.decisions import compare_decisions
from fmmt_deploy.parity.metrics import TensorComparison, compare_outputs, compare_tensors
from fmmt_deploy.parity.report import ParityReport, StageParity
from fmmt_deploy.parity.tolerances import EXACT, TOLERANCES, coarsest
from fmmt_deploy.pipeline.inputs import utterance_inputs, vision_inputs
from fmmt_deploy.pipeline.noise import Noise
from fmmt_deploy.pipeline.plan import padded_tokens
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, GraphName

__all__ = [
    "Case",
    "RecordedEngine",
    "accept_graph",
    "cases_from_dataset",
    "cases_from_self_test",
    "compare_graph",
    "parity",
    "recorded_engines",
]

Inputs = Mapping[str, Array]
FROM_OTHER_GRAPHS = ("token_states", "face_logits")


@dataclass(frozen=True, slots=True)
class Case:
    """One batch for the whole model.

    Attributes:
        swin: Faces, or None if no utterance of the batch has any (or the model has no `swin`).
        plm: Tokens and their mask; None for a unimodal model.
        last: What `fusion` or `unimodal` takes, without what comes from the other two graphs.
    """

    swin: Inputs | None
    plm: Inputs | None
    last: Inputs

    def by_graph(self) -> dict[GraphName, Inputs]:
        """The inputs of every graph, without those that other graphs compute; of no face the logits are zeros."""
        if self.plm is None:
            return {"unimodal": self.last}
        if self.swin is None:
            return {"plm": self.plm, "fusion": {**self.last, "face_logits": np.zeros((1, 7), np.float32)}}
        return {"swin": self.swin, "plm": self.plm, "fusion": self.last}


class RecordedEngine:
    """Answers from a record: what the reference computed when the bundle was made.

    Args:
        graph: Which graph.
        stage: Its recorded inputs and outputs.
    """

    def __init__(self, graph: GraphName, stage: Stage) -> None:
        self._graph, self._stage = graph, stage

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return {name: array.dtype for name, array in self._stage.inputs.items()}

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Gives the recorded outputs.

        Raises:
            UsageError: The inputs are not the recorded ones.
        """
        given = arrays_from_values(inputs)
        same = given.keys() == self._stage.inputs.keys()
        if not same or any(not np.array_equal(array, self._stage.inputs[name]) for name, array in given.items()):
            raise UsageError(
                f"The bundle's record of {self._graph} has no answer for these inputs.",
                fix="Use --reference torch to compare on other data than the bundle's self-test.",
            )
        return dict(self._stage.outputs)

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Gives the recorded outputs; see `Engine.start`."""
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        """Holds nothing that needs to be freed."""


def recorded_engines(stages: Mapping[GraphName, Stage]) -> Engines:
    """A reference that needs no PyTorch: a bundle's own record."""
    return Engines("recorded", {name: RecordedEngine(name, stage) for name, stage in stages.items()})


def accept_graph(graph: GraphName, engine: Engine, stage: Stage, precision: Precision = "fp32") -> None:
    """Holds one graph against the reference's recorded answers.

    Raises:
        ParityError: It answers otherwise.
    """
    compare_graph(graph, engine, stage, precision).raise_unless_passed()


def compare_graph(graph: GraphName, engine: Engine, stage: Stage, precision: Precision = "fp32") -> ParityReport:
    """Compares one graph with the reference's recorded answers."""
    tensors = _compared(graph, stage.inputs, stage.outputs, engine.run(stage.inputs), precision)
    return ParityReport(f"{graph} {precision}", "torch fp32", (StageParity(graph, tensors),))


def cases_from_self_test(stages: Mapping[GraphName, Stage]) -> Iterator[Case]:
    """The bundle's own inputs, as one case."""
    if "unimodal" in stages:
        yield Case(None, None, stages["unimodal"].inputs)
    else:
        last = {name: array for name, array in stages["fusion"].inputs.items() if name not in FROM_OTHER_GRAPHS}
        yield Case(stages["swin"].inputs, stages["plm"].inputs, last)


def cases_from_dataset(pipeline: Pipeline, dataset: DataSet, noise: Noise, first: int = 0) -> Iterator[Case]:
    """A data set, prepared as `fmmt run` would.

    Args:
        pipeline: Prepares it.
        dataset: It.
        noise: On the faces' logits.
        first: So many cases are left out, and nothing is read for them.
    """
    architecture = pipeline.architecture
    if architecture.fusion is None:
        utterances = [u for dialogue in dataset.dialogues for u in dialogue.utterances]
        for start in range(first * pipeline.batch_size, len(utterances), pipeline.batch_size):
            batch = utterances[start : start + pipeline.batch_size]
            yield Case(None, None, vision_inputs(batch, architecture.vision_length))
        return
    work = [(group, members) for group in pipeline.plan(dataset) for members in pipeline.steps(group)]
    for group, members in work[first:]:
        ids, mask = padded_tokens(group.windows)
        step = pipeline.read(members)
        last = utterance_inputs(step.members, architecture.fusion, noise)
        faces = {"faces": step.faces} if len(step.faces) else None
        yield Case(faces, {"input_ids": ids, "attention_mask": mask}, last)


def parity(
    architecture: Architecture,
    reference: Engines,
    engines: Engines,
    cases: Iterable[Case],
) -> ParityReport:
    """Compares every graph by itself, on the reference's own inputs for it, and the model end to end.

    Args:
        architecture: The model's.
        reference: What is right.
        engines: What is tested; each graph is held to the tolerances of its precision, the whole to the coarsest.
        cases: The inputs.
    """
    record = _Record()
    last: GraphName = "unimodal" if architecture.unimodal is not None else "fusion"
    for case in cases:
        _run_case(case, last, reference, engines, record)
    precision = coarsest(engines.precisions.values())
    stages = [
        StageParity(graph, _compared(graph, {}, *record.joined(graph), engines.precisions[graph]))
        for graph in (*(("swin", "plm") if last == "fusion" else ()), last)
        if record.has(graph)
    ]
    right, found = record.joined("end to end")
    decisions = compare_decisions(
        right["logits"], found["logits"], TOLERANCES[precision], right.get("kept"), found.get("kept")
    )
    tensors = _compared(last, {}, right, found, precision, end_to_end=True)
    stages.append(StageParity("end to end", tensors, decisions))
    return ParityReport(
        f"{engines.kind} {text_from_precisions(engines.precisions)}", f"{reference.kind} fp32", tuple(stages)
    )


@dataclass
class _Record:
    """Outputs of both sides, case by case."""

    pairs: dict[str, list[tuple[Inputs, Inputs]]] = field(default_factory=dict)

    def add(self, stage: str, reference: Inputs, actual: Inputs) -> None:
        self.pairs.setdefault(stage, []).append((reference, actual))

    def has(self, stage: str) -> bool:
        return stage in self.pairs

    def joined(self, stage: str) -> tuple[dict[str, Array], dict[str, Array]]:
        sides = zip(*self.pairs[stage], strict=True)
        first, second = ({n: np.concatenate([case[n] for case in side]) for n in side[0]} for side in sides)
        return first, second


def _run_case(case: Case, last: GraphName, reference: Engines, engines: Engines, record: _Record) -> None:
    right, found = dict(case.last), dict(case.last)
    if case.plm is not None:
        states, ours = (e["plm"].run(case.plm)["token_states"] for e in (reference, engines))
        real = case.plm["attention_mask"].astype(bool)
        record.add("plm", {"token_states": states[real]}, {"token_states": ours[real]})
        right["token_states"], found["token_states"] = states, ours
    if case.swin is not None:
        logits, ours = (e["swin"].run(case.swin)["face_logits"] for e in (reference, engines))
        record.add("swin", {"face_logits": logits}, {"face_logits": ours})
        right["face_logits"], found["face_logits"] = logits, ours
    elif last == "fusion":
        right["face_logits"] = found["face_logits"] = np.zeros((1, 7), np.float32)
    answer = reference[last].run(right)
    record.add(last, answer, engines[last].run(right))
    record.add("end to end", answer, engines[last].run(found))


def _compared(
    graph: GraphName,
    inputs: Inputs,
    reference: Inputs,
    actual: Inputs,
    precision: Precision,
    end_to_end: bool = False,
) -> tuple[TensorComparison, ...]:
    """On the same face logits the gate, which is float32 in every graph, keeps the same faces in any precision.

    End to end it may not, in a lower one: then the logits are those of other faces, which no tolerance is about. How
    often that may be is said for decisions and kept faces.
    """
    masks = {"token_states": inputs["attention_mask"].astype(bool)} if "attention_mask" in inputs else {}
    right, found, exactly = reference.get("kept"), actual.get("kept"), not end_to_end or precision == "fp32"
    if right is not None and found is not None and right.shape == found.shape and not exactly:
        masks["logits"] = np.all(right == found, axis=1)
    compared = compare_outputs(reference, actual, TOLERANCES[precision].of(graph), masks)
    if graph == "fusion" and right is not None and found is not None and exactly:
        return (*compared, compare_tensors("kept", right, found, EXACT))
    return compared
