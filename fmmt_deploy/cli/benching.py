"""What `fmmt bench` does between reading its options and showing what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fmmt_deploy.benchmark.bench import Plan, cold_starts, measure_workload, witnesses_for
from fmmt_deploy.benchmark.choices import Choice, choice_from_option, published_choice
from fmmt_deploy.benchmark.document import Bench
from fmmt_deploy.benchmark.raw import samples_of
from fmmt_deploy.benchmark.samples import write_samples
from fmmt_deploy.benchmark.saved_figures import Terms, terms_of
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.serving import ServerSettings
from fmmt_deploy.benchmark.sides import opened
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.cli.output import plain_values
from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.data.fingerprint import fingerprint
from fmmt_deploy.errors import UsageError
from fmmt_deploy.nvidia import nvidia_gpus
from fmmt_deploy.pipeline.answers import check_new_file, write_text
from fmmt_deploy.receipts.machine import device_facts, tool_versions

if TYPE_CHECKING:
    from fmmt_deploy.cli.bench_gates import Outcome
    from fmmt_deploy.cli.output import Output
    from fmmt_deploy.cli.recording import Recording
    from fmmt_deploy.receipts.record import Hashed
    from fmmt_deploy.types import DataSet

__all__ = [
    "Asked",
    "OutputFiles",
    "exported_at_random",
    "made_workloads",
    "measured",
    "planned",
    "record",
    "scenarios_from_options",
]

SCENARIOS: tuple[ScenarioName, ...] = ("single-stream", "server", "offline")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options ask for.

    Attributes:
        engines: As `--engine` names them.
        published: Whether the published loop is measured.
        scenarios: From files to labels.
        rounds: See `Plan`.
        seconds: See `Plan`.
        starts: Processes of each engine's cold start.
        limit_ms: Of the server.
    """

    engines: Sequence[str]
    published: bool
    scenarios: Sequence[ScenarioName]
    rounds: int
    seconds: float
    starts: int
    limit_ms: float | None


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Files that are written beside what is shown; that they can be is checked before anything is measured.

    Attributes:
        samples: For every time that was measured, as JSONL.
        save: For the result, as JSON.
        force: Replace what is there.

    Raises:
        UsageError: One exists, or its folder does not, or both are one.
    """

    samples: Path | None
    save: Path | None
    force: bool

    def __post_init__(self) -> None:
        if self.samples is not None and self.save is not None and self.samples.resolve() == self.save.resolve():
            raise UsageError(f"--samples and --save are both {self.save}.", fix="Give them two names.", path=self.save)
        for path in (self.samples, self.save):
            if path is not None:
                check_new_file(path, self.force)

    def write(self, bench: Bench, outcome: Outcome, schema: str) -> None:
        """Writes those that are wanted.

        Raises:
            EnvironmentProblem: One can't be written.
        """
        if self.samples is not None:
            about = {"model": bench.model, "settings": plain_values(bench.settings)}
            machine = {**bench.machine, "tools": dict(bench.tools)}
            write_samples(self.samples, samples_of(bench), machine=machine, about=about, force=self.force)
        if self.save is not None:
            document = {"schema": schema, **outcome.document}
            write_text(self.save, json.dumps(document, indent=2, ensure_ascii=False) + "\n", self.force)


def planned(session: Session, asked: Asked, workloads: Sequence[DataSet]) -> Terms:
    """What a run will be measured on, and how.

    Raises:
        UsageError: An engine or a precision is unknown.
    """
    choices = [choice_from_option(text, session.architecture) for text in asked.engines]
    engines = [choice.name for choice in _with_published(session, asked, choices)]
    sources = {fingerprint(workload): workload.source for workload in workloads}
    return terms_of(_machine(), _settings(session, asked), sources, engines)


def measured(session: Session, asked: Asked, workloads: Sequence[DataSet], model: str, shown: Output) -> Bench:
    """Measures every workload, then every engine's cold start.

    Raises:
        UsageError: An engine or a precision is unknown, or the model has no published loop.
        EnvironmentProblem: An engine's packages, or its GPU, are missing.
        FmmtError: An engine fails.
    """
    choices = [choice_from_option(text, session.architecture) for text in asked.engines]
    plan = _plan(session, asked, choices, shown)
    with opened(
        session.bundle, choices, asked.published, session.batch_size, session.threads, session.cache
    ) as engines:
        reports = tuple(measure_workload(engines, workload, plan) for workload in workloads)
    starts = cold_starts(session.bundle.path, choices, session.threads, session.cache, asked.starts, plan)
    return Bench(model, _machine(), tool_versions(), _settings(session, asked), reports, starts)


def made_workloads(session: Session, scratch: Path, dialogues: int, faces: Sequence[float]) -> list[DataSet]:
    """MELD-shaped dialogues, for each mean number of faces an utterance."""
    return [meld_shaped(session.architecture, scratch, dialogues, mean) for mean in faces]


def scenarios_from_options(given: Sequence[str]) -> tuple[ScenarioName, ...]:
    """Reads `--scenario`, each once; default single stream and offline.

    Raises:
        UsageError: There is no such scenario.
    """
    for name in given:
        if name not in SCENARIOS:
            raise UsageError(f"--scenario {name}: there is none.", fix=f"Known are {', '.join(SCENARIOS)}.")
    return tuple(name for name in SCENARIOS if name in given) or ("single-stream", "offline")


def exported_at_random(preset: Literal["full", "tiny"], path: Path, shown: Output) -> Path:
    """A bundle with random weights."""
    from fmmt_deploy.export.export import export_bundle
    from fmmt_deploy.export.source import random_source

    shown.status(f"making a {preset} model with random weights")
    export_bundle(random_source(preset), path, accept=lambda *_: None, status=shown.status)
    return path


def _plan(session: Session, asked: Asked, choices: Sequence[Choice], shown: Output) -> Plan:
    server = None if asked.limit_ms is None else ServerSettings(asked.limit_ms, session.batch_size)
    witnesses = witnesses_for(_with_published(session, asked, choices))
    return Plan(asked.scenarios, asked.rounds, asked.seconds, server, witnesses, status=shown.status)


def _with_published(session: Session, asked: Asked, choices: Sequence[Choice]) -> list[Choice]:
    return [*choices, *([published_choice(choices, session.architecture)] if asked.published else [])]


def _machine() -> dict[str, object]:
    return device_facts([asdict(gpu) for gpu in nvidia_gpus()])


def _settings(session: Session, asked: Asked) -> dict[str, object]:
    return {**asdict(asked), "batch_size": session.batch_size, "threads": session.threads}


def record(
    recording: Recording, session: Session, asked: Asked, workloads: Sequence[DataSet], split: str, outcome: Outcome
) -> None:
    """Leaves a receipt of what was measured, with which engines and on what."""
    from fmmt_deploy.cli.recording import data_input, subjects_of

    subjects: dict[str, str] = {}
    for text in asked.engines:
        choice = choice_from_option(text, session.architecture)
        subjects |= subjects_of(session.bundle, choice.kind, choice.precisions, session.cache)
    inputs: dict[str, Hashed] = {}
    for number, workload in enumerate(workloads, 1):
        inputs |= data_input(workload, split, "data" if len(workloads) == 1 else f"data {number}")
    recording.write(
        session.bundle,
        outcome.document,
        verdict=outcome.verdict,
        exit_code=0 if outcome.failure is None else outcome.failure.exit_code,
        subjects=subjects,
        inputs=inputs,
        seeds={"queries": [0], "made-up dialogues": [0]},
    )
