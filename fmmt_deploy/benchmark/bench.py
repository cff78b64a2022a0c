"""A whole benchmark: every boundary and scenario of a workload, each table watched for what disturbs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from fmmt_deploy.benchmark import rates
from fmmt_deploy.benchmark.boundaries import Boundary, Recorded, boundary_rows, recorded_dialogues
from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.benchmark.cold_start import cold_start
from fmmt_deploy.benchmark.cpu_witness import CpuWitness
from fmmt_deploy.benchmark.document import BoundaryTable, ColdStarts, FilesTable, StageTable, Workload, WorkloadReport
from fmmt_deploy.benchmark.files import Figure, offline_figures, single_stream_figures
from fmmt_deploy.benchmark.gpu_witness import GpuWitness, gpu_in_use
from fmmt_deploy.benchmark.queries import queries_of
from fmmt_deploy.benchmark.rates import rate_rows
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.serving import ServerSettings, server_figures
from fmmt_deploy.benchmark.sides import Opened, Side, offline_sides, server_sides, single_stream_sides
from fmmt_deploy.benchmark.stages import Staged, StageRow, stage_rows, staged_pass, staged_ways
from fmmt_deploy.benchmark.turns import Effort
from fmmt_deploy.benchmark.validity import Watched, Witness, watched
from fmmt_deploy.benchmark.workload import tokens_of_dialogues
from fmmt_deploy.data.fingerprint import fingerprint
from fmmt_deploy.types import DataSet

__all__ = ["Plan", "cold_starts", "measure_workload", "witnesses_for"]

ON_HOST = "It computes on the host, where nothing is copied: its time is that of the engine boundary."


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        scenarios: Which, from files to labels.
        rounds: Turns of every side in every table, at least.
        seconds: How long every table is measured, at least.
        server: What a server must hold; None without that scenario.
        witnesses: Who watches.
        status: Told what begins.
    """

    scenarios: Sequence[ScenarioName]
    rounds: int
    seconds: float = 0.0
    server: ServerSettings | None = None
    witnesses: Sequence[Witness] = ()
    status: Callable[[str], object] = lambda _: None


@dataclass
class _Rates:
    """The machine's matrix rates, sampled between the turns of everything."""

    samplers: Mapping[str, Callable[[], float]]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def sample(self) -> None:
        for name, sampler in self.samplers.items():
            self.samples.setdefault(name, []).append(sampler())

    def gflops(self) -> dict[str, float]:
        return {name: 1000 * median(samples) for name, samples in self.samples.items()}


def witnesses_for(choices: Sequence[Choice]) -> tuple[Witness, ...]:
    """Who watches the processors, and the GPU if something computes there."""
    if all(choice.device == "cpu" for choice in choices):
        return (CpuWitness(),)
    return (CpuWitness(), GpuWitness(gpu_in_use()))


def measure_workload(opened: Opened, dataset: DataSet, plan: Plan) -> WorkloadReport:
    """Measures engines that are open with one workload.

    Raises:
        FmmtError: An engine fails.
    """
    measured = [*opened.choices, *([] if opened.published is None else [opened.published])]
    sampled, copied = _Rates(rates.rates_for(measured, opened.threads)), rates.copy_rate_for(measured)
    staged = staged_ways(opened)
    _warm_up(staged, dataset)
    recorded = tuple(recorded_dialogues(opened, dataset))
    device = _boundary(opened, recorded, "device", plan, sampled)
    engine = _boundary(opened, recorded, "engine", plan, sampled)
    del recorded
    files = tuple(_scenario(opened, dataset, scenario, plan, sampled) for scenario in plan.scenarios)
    stages = _stages(opened, staged, dataset, plan, sampled)
    return WorkloadReport(_about(opened, dataset), rate_rows(sampled.samples), copied, device, engine, files, stages)


def cold_starts(
    bundle: Path, choices: Sequence[Choice], threads: int, cache: Path | None, processes: int, plan: Plan
) -> ColdStarts:
    """Opens every engine in processes of its own.

    Raises:
        FmmtError: One of them failed.
    """
    plan.status("cold start, an engine at a time")
    with watched(plan.witnesses) as work:
        rows = tuple(cold_start(bundle, choice, threads, cache, processes) for choice in choices)
    return ColdStarts(rows, work.validity)


def _about(opened: Opened, dataset: DataSet) -> Workload:
    utterances = [u for dialogue in dataset.dialogues for u in dialogue.utterances]
    return Workload(
        source=dataset.source,
        dialogues=len(dataset.dialogues),
        utterances=len(utterances),
        tokens=sum(tokens_of_dialogues(opened.bundle, dataset)),
        faces=sum(u.vision_length for u in utterances),
        sha256=fingerprint(dataset),
    )


def _boundary(
    opened: Opened, recorded: Sequence[Recorded], boundary: Boundary, plan: Plan, sampled: _Rates
) -> BoundaryTable:
    wanted = [one for one in recorded if boundary == "engine" or one.choice.device == "cuda"]
    absent = {} if boundary == "engine" else {c.name: ON_HOST for c in opened.choices if c.device == "cpu"}
    with _watched(plan, f"engine calls, boundary {boundary}" if wanted else "", sampled) as (work, effort):
        rows, blocks = boundary_rows(opened, wanted, boundary, effort, sampled.gflops)
    return BoundaryTable(boundary, rows, absent, work.validity, blocks)


def _scenario(opened: Opened, dataset: DataSet, scenario: ScenarioName, plan: Plan, sampled: _Rates) -> FilesTable:
    queries, sides = queries_of(dataset), _SIDES[scenario](opened)
    figures: tuple[Figure, ...]
    with _watched(plan, f"files to labels, {scenario}: {dataset.source}", sampled) as (work, effort):
        if scenario == "single-stream":
            figures = single_stream_figures(sides, queries, effort)
        elif scenario == "offline":
            figures = offline_figures(sides, queries, effort)
        else:
            assert plan.server is not None
            figures = server_figures(sides, queries, plan.server, work.look)
    baseline = "" if scenario == "server" else sides[0].name
    return FilesTable(scenario, figures, baseline, work.validity)


_SIDES: Mapping[ScenarioName, Callable[[Opened], list[Side]]] = {
    "single-stream": single_stream_sides,
    "offline": offline_sides,
    "server": server_sides,
}


def _stages(opened: Opened, staged: Sequence[Staged], dataset: DataSet, plan: Plan, sampled: _Rates) -> StageTable:
    """One pass over all dialogues for every way of working."""
    rows = list[StageRow]()
    with _watched(plan, "stages", sampled) as (work, effort):
        for one in staged:
            effort.between()
            staged_pass(one, dataset, work.look)
            rows += stage_rows(one, dataset, opened.bundle, rate_rows(sampled.samples))
    return StageTable(tuple(rows), work.validity)


def _warm_up(staged: Sequence[Staged], dataset: DataSet) -> None:
    """Lets what is on a GPU meet every shape once: it may compile, or record, by shape."""
    for one in staged:
        if one.choice.device == "cuda":
            staged_pass(one, dataset)


@contextmanager
def _watched(plan: Plan, what: str, sampled: _Rates) -> Iterator[tuple[Watched, Effort]]:
    """Watches one table's measuring; with the effort that tells the witnesses of every turn."""
    if not what:
        yield Watched(()), Effort(plan.rounds)
        return
    plan.status(what)
    with watched(plan.witnesses) as work:
        yield work, Effort(plan.rounds, plan.seconds, between=sampled.sample, advance=work.look, clock=perf_counter)
