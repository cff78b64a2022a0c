"""What `fmmt bench --json` says: `fmmt.bench/2`.

```
{model, machine, tools, settings, valid, reasons, unseen,
 workloads: [{workload, rates, copy_gb_per_s,
              device:        {says, absent, validity, rows},     one row an engine, way and graph
              engine:        {says, absent, validity, rows},
              files:         {says, single-stream | offline | server: {baseline, validity, rows}, stages}}],
 cold_start: {validity, rows}, samples, regression}
```

The three boundaries are three keys, and no row is of two. A row is invalid where its own samples say so, or the table
was measured while something disturbed the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from fmmt_deploy.benchmark.blocks import Block
from fmmt_deploy.benchmark.boundaries import Boundary, BoundaryRow
from fmmt_deploy.benchmark.cold_start import ColdStart
from fmmt_deploy.benchmark.files import Figure
from fmmt_deploy.benchmark.rates import RateRow
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.stages import StageRow
from fmmt_deploy.benchmark.validity import Validity, together

__all__ = ["SAYS", "Bench", "BoundaryTable", "ColdStarts", "FilesTable", "StageTable", "Workload", "WorkloadReport"]

SAYS: Mapping[str, str] = {
    "device": "compute alone: inputs lie where the engine computes, outputs stay there",
    "engine": "engine calls: inputs from the host, outputs back to the host",
    "files": "from files to labels: reading, decoding, tokenising, engines, decision",
}


@dataclass(frozen=True)
class Workload:
    """What is answered: `sha256` is the data's `fingerprint`, `tokens` are counted once a dialogue."""

    source: str
    dialogues: int
    utterances: int
    tokens: int
    faces: int
    sha256: str


@dataclass(frozen=True)
class BoundaryTable:
    """Engine calls at one boundary; `absent` says for engines why they have no row."""

    boundary: Boundary
    rows: tuple[BoundaryRow, ...]
    absent: Mapping[str, str]
    validity: Validity
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "says": SAYS[self.boundary],
            "absent": dict(self.absent),
            "validity": self.validity.to_json(),
            "rows": [row.to_json(self.validity) for row in self.rows],
        }


@dataclass(frozen=True)
class FilesTable:
    """One scenario from files to labels; `baseline` names what ratios are against, `engine way`."""

    scenario: ScenarioName
    figures: tuple[Figure, ...]
    baseline: str
    validity: Validity

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "baseline": self.baseline,
            "validity": self.validity.to_json(),
            "rows": [figure.to_json(self.validity) for figure in self.figures],
        }


@dataclass(frozen=True)
class StageTable:
    """Where the time from files to labels goes, in a pass of its own that waits after every stage."""

    rows: tuple[StageRow, ...]
    validity: Validity

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"validity": self.validity.to_json(), "rows": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class WorkloadReport:
    """Everything measured with one workload."""

    workload: Workload
    rates: tuple[RateRow, ...]
    copy_gb_per_s: float | None
    device: BoundaryTable
    engine: BoundaryTable
    files: tuple[FilesTable, ...]
    stages: StageTable

    @property
    def validity(self) -> Validity:
        """Of all figures together."""
        figures = [figure for table in self.files for figure in table.figures]
        return together(
            (
                self.device.validity,
                self.engine.validity,
                self.stages.validity,
                *(table.validity for table in self.files),
                *(row.validity for table in (self.device, self.engine) for row in table.rows),
                *(figure.validity for figure in figures),
                *(Validity(figure.ratio.reasons) for figure in figures if figure.ratio is not None),
            )
        )

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        scenarios: dict[str, object] = {table.scenario: table.to_json() for table in self.files}
        return {
            "workload": asdict(self.workload),
            "rates": [asdict(rate) for rate in self.rates],
            "copy_gb_per_s": self.copy_gb_per_s,
            "device": self.device.to_json(),
            "engine": self.engine.to_json(),
            "files": {"says": SAYS["files"], **scenarios, "stages": self.stages.to_json()},
        }


@dataclass(frozen=True)
class ColdStarts:
    """Engines opened in processes of their own."""

    rows: tuple[ColdStart, ...]
    validity: Validity

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"validity": self.validity.to_json(), "rows": [row.to_json(self.validity) for row in self.rows]}


@dataclass(frozen=True)
class Bench:
    """A whole run."""

    model: str
    machine: Mapping[str, object]
    tools: Mapping[str, str]
    settings: Mapping[str, object]
    workloads: Sequence[WorkloadReport]
    cold_starts: ColdStarts

    @property
    def validity(self) -> Validity:
        """Valid if every figure is."""
        return together((*(report.validity for report in self.workloads), self.cold_starts.validity))

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        validity = self.validity
        return {
            "model": self.model,
            "machine": dict(self.machine),
            "tools": dict(self.tools),
            "settings": dict(self.settings),
            "valid": validity.valid,
            "reasons": list(validity.reasons),
            "unseen": list(validity.unseen),
            "workloads": [report.to_json() for report in self.workloads],
            "cold_start": self.cold_starts.to_json(),
        }
