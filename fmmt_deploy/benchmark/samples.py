"""Raw samples as JSON lines, so that whoever doubts a figure can compute it again.

The first line says what the file is: schema, number of samples, the machine, and what was measured. Every other line is
one sample. The file is written whole or not at all, and reading it checks every line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from fmmt_deploy.benchmark.blocks import Block
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.statistics import DoubleArray
from fmmt_deploy.errors import ArtefactError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.pipeline.answers import write_text

__all__ = ["SCHEMA", "Boundary", "Sample", "SampleFile", "read_samples", "samples_from_blocks", "write_samples"]

SCHEMA = "fmmt.samples/1"
Boundary: TypeAlias = Literal["device", "engine", "files"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One time that was measured.

    Attributes:
        contender: Of what: an engine in a way of working, or a graph.
        boundary: From where to where: compute on the device, the engine's call with copies, or files to labels.
        scenario: In which scenario.
        block: Number of the round, or of the server's run.
        index: Number of the sample within its contender, boundary, scenario and block.
        ms: The time in milliseconds.
        start_s: When it began, in seconds since the measurement did; a query of a server begins when it arrives.
    """

    contender: str
    boundary: Boundary
    scenario: ScenarioName
    block: int
    index: int
    ms: float
    start_s: float


@dataclass(frozen=True)
class SampleFile:
    """What a file holds.

    Attributes:
        machine: What it was measured on.
        about: What was measured.
        samples: All of them, in the order in which they were written.
    """

    machine: Mapping[str, object]
    about: Mapping[str, object]
    samples: tuple[Sample, ...]

    def keys(self) -> tuple[tuple[str, Boundary, ScenarioName], ...]:
        """Every contender, boundary and scenario that there are samples of, in order of their first."""
        return tuple(dict.fromkeys((s.contender, s.boundary, s.scenario) for s in self.samples))

    def times_ms(self, contender: str, boundary: Boundary, scenario: ScenarioName) -> DoubleArray:
        """Milliseconds of one of `keys`, `(samples,)`."""
        return np.array([s.ms for s in self._of(contender, boundary, scenario)], np.float64)

    def starts_s(self, contender: str, boundary: Boundary, scenario: ScenarioName) -> DoubleArray:
        """Seconds at which those began, `(samples,)`."""
        return np.array([s.start_s for s in self._of(contender, boundary, scenario)], np.float64)

    def _of(self, contender: str, boundary: Boundary, scenario: ScenarioName) -> Iterator[Sample]:
        wanted = (contender, boundary, scenario)
        return (s for s in self.samples if (s.contender, s.boundary, s.scenario) == wanted)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line, without what is free in form."""

    schema: str
    samples: int


def samples_from_blocks(
    blocks: Iterable[Block], boundary: Boundary, scenario: ScenarioName = "single-stream"
) -> tuple[Sample, ...]:
    """The kept samples of blocks; those of a window follow each other, so each begins where the last ended."""
    made = []
    for block in blocks:
        start = block.started_s
        for index, ms in enumerate(ms for window in block.windows_ms for ms in window):
            made.append(Sample(block.contender, boundary, scenario, block.round, index, ms, start))
            start += ms / 1000
    return tuple(made)


def write_samples(
    path: Path,
    samples: Sequence[Sample],
    *,
    machine: Mapping[str, object],
    about: Mapping[str, object],
    force: bool = False,
) -> None:
    """Writes a header line, and a line a sample.

    Args:
        path: The file.
        samples: In the order in which they are written.
        machine: What they were measured on; plain values.
        about: What was measured; plain values.
        force: Replace a file that is there.

    Raises:
        UsageError: The file exists, or its folder does not.
        EnvironmentProblem: It can't be written; nothing is left behind.
    """
    head = {"schema": SCHEMA, "samples": len(samples), "machine": dict(machine), "about": dict(about)}
    lines = [head, *(asdict(sample) for sample in samples)]
    write_text(path, "".join(f"{json.dumps(line, allow_nan=False, ensure_ascii=False)}\n" for line in lines), force)


def read_samples(path: Path) -> SampleFile:
    """Reads what `write_samples` wrote.

    Raises:
        ArtefactError: It can't be read, is of another schema, or a line is missing or not what it should be.
    """
    try:
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"The samples {path} can't be read.", why=str(error), path=path) from error
    head, machine, about = _head(path, lines[0] if lines else "")
    samples = tuple(_sample(path, number, line) for number, line in enumerate(lines[1:], 2))
    if rest or len(samples) != head.samples:
        raise _damaged(path, f"its first line says {head.samples} samples, there are {len(samples)}")
    return SampleFile(machine, about, samples)


def _head(path: Path, line: str) -> tuple[_Head, Mapping[str, object], Mapping[str, object]]:
    try:
        values = json_object_from_text(line)
        machine, about = values.pop("machine", None), values.pop("about", None)
        head = dataclass_from_json(_Head, values)
    except JsonValueError as error:
        raise _damaged(path, f"line 1: {error}") from error
    if head.schema != SCHEMA or not isinstance(machine, dict) or not isinstance(about, dict):
        raise _damaged(path, f"its first line should be that of {SCHEMA}, found {head.schema}")
    return head, machine, about


def _sample(path: Path, number: int, line: str) -> Sample:
    try:
        sample = dataclass_from_json(Sample, json_object_from_text(line))
    except JsonValueError as error:
        raise _damaged(path, f"line {number}: {error}") from error
    if not sample.ms > 0:
        raise _damaged(path, f"line {number}: ms should be above 0, found {sample.ms}")
    return sample


def _damaged(path: Path, why: str) -> ArtefactError:
    return ArtefactError(f"{path} holds no samples.", why=why, fix="Measure again with --samples.", path=path)
