"""The raw samples of a whole benchmark, for `write_samples`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fmmt_deploy.benchmark.boundaries import END_TO_END
from fmmt_deploy.benchmark.document import Bench, BoundaryTable, FilesTable
from fmmt_deploy.benchmark.rate_search import Server
from fmmt_deploy.benchmark.samples import Sample, samples_from_blocks
from fmmt_deploy.benchmark.server import arrivals

__all__ = ["samples_of"]


def samples_of(bench: Bench) -> list[Sample]:
    """Every time that was measured; contenders carry the workload's name where there are several."""
    found = list[Sample]()
    for report in bench.workloads:
        prefix = f"{report.workload.source}: " if len(bench.workloads) > 1 else ""
        for boundary in (report.device, report.engine):
            found += _of_boundary(boundary, prefix)
        for table in report.files:
            found += _of_scenario(table, prefix)
    return found


def _of_boundary(table: BoundaryTable, prefix: str) -> Iterator[Sample]:
    """Of each turn every graph's calls, and all together at last: milliseconds an utterance."""
    parts = (*dict.fromkeys(row.part for row in table.rows if row.part != END_TO_END), END_TO_END)
    for block in table.blocks:
        for index, window in enumerate(block.windows_ms):
            for part, ms in zip(parts, window, strict=True):
                name = f"{prefix}{block.contender} {part}"
                yield Sample(name, table.boundary, "single-stream", block.round, index, ms, block.started_s)


def _of_scenario(table: FilesTable, prefix: str) -> Iterator[Sample]:
    for figure in table.figures:
        name = f"{prefix}{figure.engine} {figure.way}"
        if isinstance(figure.result, Server):
            yield from _of_server(figure.result, name)
        for sample in samples_from_blocks(figure.blocks, "files", table.scenario):
            yield replace(sample, contender=name)


def _of_server(found: Server, name: str) -> Iterator[Sample]:
    for number, run in enumerate(found.runs):
        due = arrivals(run.rate, run.planned, number)
        for index, ms in enumerate(run.samples_ms):
            yield Sample(name, "files", "server", number, index, ms, float(due[index]))
