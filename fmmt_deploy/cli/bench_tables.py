"""What `fmmt bench` shows to people: a table for every boundary and scenario, each with its validity."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fmmt_deploy.benchmark.blocks import BlockRatio
from fmmt_deploy.benchmark.document import Bench, BoundaryTable, ColdStarts, FilesTable, StageTable, WorkloadReport
from fmmt_deploy.benchmark.files import Figure
from fmmt_deploy.benchmark.percentiles import Percentile
from fmmt_deploy.benchmark.rate_search import Server
from fmmt_deploy.benchmark.scenarios import Offline, SingleStream
from fmmt_deploy.benchmark.sides import DESCRIPTIONS
from fmmt_deploy.benchmark.statistics import format_ms
from fmmt_deploy.benchmark.validity import Validity, rows_by_reason, together
from fmmt_deploy.cli.output import WIDTH, Table, readable_bytes

__all__ = ["bench_parts"]

_TITLES = {
    "device": "Device: compute alone, inputs and outputs where the engine computes",
    "engine": "Engine: its calls, with copies from and to the host",
}
_CACHE = {True: "with", False: "without", None: "–"}


def bench_parts(bench: Bench) -> list[Table | str]:
    """Everything, the verdict first."""
    parts: list[Table | str] = [_verdict("This run", bench.validity, limit=3)]
    for report in bench.workloads:
        parts += _workload(report, bench.settings)
    return [*parts, *_cold_starts(bench.cold_starts)]


def _workload(report: WorkloadReport, settings: Mapping[str, object]) -> Iterator[Table | str]:
    about = report.workload
    rows = [
        ("workload", about.source),
        ("size", f"{about.utterances} utterances, {about.tokens} tokens, {about.faces} faces"),
        ("settings", _settings(settings)),
        *(("matrix products", f"{r.gflops:.0f} GFLOP/s on {r.name} ({_span(*r.gflops_range)})") for r in report.rates),
    ]
    if report.copy_gb_per_s is not None:
        rows.append(("the GPU's memory", f"{report.copy_gb_per_s:.0f} GB/s read and written"))
    yield Table("", (), rows)
    yield from _boundary(report.device)
    yield from _boundary(report.engine)
    for table in report.files:
        yield from _scenario(table)
    yield from _stages(report.stages)


def _boundary(table: BoundaryTable) -> Iterator[Table | str]:
    title = _TITLES[table.boundary]
    absent = [f"{engine}: {why}" for engine, why in table.absent.items()]
    if not table.rows:
        yield "\n".join([title, *absent])
        return
    columns = ("engine", "cache", "graph", "an utterance", "lowest–highest", "GFLOP/s", "of matrix rate", "")
    rows = [
        (
            row.engine,
            _CACHE[row.cache],
            row.part,
            format_ms(row.ms),
            f"{format_ms(row.low_ms)}–{format_ms(row.high_ms)}",
            "" if row.gflop is None else f"{row.gflop / row.ms * 1000:.0f}",
            "" if row.share_of_rate is None else f"{100 * row.share_of_rate:.0f} %",
            _word(row.validity, table.validity),
        )
        for row in table.rows
    ]
    yield Table(title, columns, rows)
    named = [(f"{row.engine}, {row.way}", row.validity) for row in table.rows]
    yield from _reasons(table.validity, named, absent)


def _scenario(table: FilesTable) -> Iterator[Table | str]:
    shown = {"single-stream": _single_stream, "offline": _offline, "server": _server}[table.scenario]
    yield shown(table)
    named = [(f"{f.engine}, {f.way}", f.validity) for f in table.figures]
    ratios = [(f"{f.engine}, {f.way}", Validity(f.ratio.reasons)) for f in table.figures if f.ratio is not None]
    notes = [f"Times as fast as {_baseline(table)}, with 95 % intervals over turns."] if ratios else []
    yield from _reasons(table.validity, [*named, *ratios], notes)


def _single_stream(table: FilesTable) -> Table:
    columns = ("engine", "cache", "p50", "p90", "p90 at most", "p99 at most", "utt/s", "times as fast", "")
    rows = []
    for figure in table.figures:
        assert isinstance(figure.result, SingleStream)
        by_percent = {p.percent: p for p in figure.result.percentiles}
        rows.append(
            (
                *_who(figure),
                format_ms(by_percent[50].ms),
                format_ms(by_percent[90].ms),
                _at_most(by_percent[90]),
                _at_most(by_percent[99]),
                f"{1000 / figure.result.latency.mean_ms:.2f}",
                _ratio(figure.ratio),
                _word(figure.validity, table.validity, figure.ratio),
            )
        )
    return Table("Files to labels, single stream: one utterance after the other", columns, rows)


def _offline(table: FilesTable) -> Table:
    columns = ("engine", "cache", "utt/s", "lowest–highest", "times as fast", "")
    rows = []
    for figure in table.figures:
        assert isinstance(figure.result, Offline)
        rates = sorted(figure.result.rates)
        middle = figure.result.to_json()["per_second"]
        assert isinstance(middle, dict)
        cells = (f"{middle['median']:.2f}", f"{rates[0]:.2f}–{rates[-1]:.2f}")
        rows.append((*_who(figure), *cells, _ratio(figure.ratio), _word(figure.validity, table.validity, figure.ratio)))
    return Table("Files to labels, offline: all utterances at once", columns, rows)


def _server(table: FilesTable) -> Table:
    columns = ("engine", "cache", "shown to hold, utt/s", "not shown at", "p99 at most", "batch", "")
    rows = []
    for figure in table.figures:
        found = figure.result
        assert isinstance(found, Server)
        cells = (_rate(found.rate), _rate(found.fails_at), format_ms(found.limit_ms), str(found.batch_size))
        rows.append((*_who(figure), *cells, _word(figure.validity, table.validity)))
    return Table("Files to labels, server: utterances arrive as they like", columns, rows)


def _stages(table: StageTable) -> Iterator[Table | str]:
    columns = ("engine", "way", "stage", "an utterance", "GFLOP", "GFLOP/s", "of matrix rate", "")
    rows = [
        (
            row.engine,
            row.way,
            row.stage,
            format_ms(row.ms),
            "" if row.gflop is None else f"{row.gflop:.2f}",
            "" if row.gflop is None else f"{row.gflop / row.ms * 1000:.0f}",
            "" if row.share_of_rate is None else f"{100 * row.share_of_rate:.0f} %",
            table.validity.word,
        )
        for row in table.rows
    ]
    yield Table("Where the time goes, in a pass that waits after every stage", columns, rows)
    yield from _reasons(table.validity, (), ())


def _cold_starts(table: ColdStarts) -> Iterator[Table | str]:
    columns = ("engine", "open", "first answer", "later ones", "host's memory", "GPU's", "")
    rows = []
    for row in table.rows:
        opened, first, steady = (row.median(name) for name in ("open_ms", "first_ms", "steady_ms"))
        host, gpu = row.median("peak_bytes"), row.median("gpu_bytes")
        times = (format_ms(ms) if ms is not None else "–" for ms in (opened, first, steady))
        sizes = (readable_bytes(round(size)) if size is not None else "–" for size in (host, gpu))
        rows.append((row.engine, *times, *sizes, table.validity.word))
    yield Table("Cold start: a new process that opens the bundle and answers its self-test", columns, rows)
    yield from _reasons(table.validity, (), ())


def _who(figure: Figure) -> tuple[str, str]:
    return f"{figure.engine} published" if figure.way == "published" else figure.engine, _CACHE[figure.cache]


def _baseline(table: FilesTable) -> str:
    engine, _, way = table.baseline.rpartition(" ")
    return f"{engine}, {DESCRIPTIONS[way]}"


def _at_most(percentile: Percentile) -> str:
    """Its upper bound; of too few samples there is none, and the largest must not be taken for it."""
    return "too few" if percentile.high_ms is None else format_ms(percentile.high_ms)


def _ratio(ratio: BlockRatio | None) -> str:
    if ratio is None:
        return "baseline"
    interval = "" if ratio.low is None or ratio.high is None else f" ({_span(ratio.low, ratio.high, 2)})"
    return f"{ratio.median:.2f}×{interval}"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3g}"


def _span(low: float, high: float, digits: int = 0) -> str:
    return f"{low:.{digits}f}–{high:.{digits}f}"


def _word(own: Validity, table: Validity, ratio: BlockRatio | None = None) -> str:
    """Of a row: with the table, and with what is said of its ratio."""
    return together((own, table, Validity(() if ratio is None else ratio.reasons))).word


def _reasons(table: Validity, rows: Iterable[tuple[str, Validity]], notes: Sequence[str]) -> Iterator[str]:
    """What is said below a table: notes, why all of it is invalid, and why some rows are, each reason once."""
    whose = rows_by_reason((who, validity.reasons) for who, validity in rows)
    lines = [*notes, *(f"INVALID: {reason}" for reason in table.reasons)]
    lines += [f"INVALID, {'; '.join(who)}: {reason}" for reason, who in whose.items()]
    if lines:
        yield "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def _verdict(what: str, validity: Validity, limit: int) -> str:
    lines = [f"{what} is {validity.word}."]
    lines += [f"  {reason}" for reason in validity.reasons[:limit]]
    if len(validity.reasons) > limit:
        lines.append(f"  and {len(validity.reasons) - limit} more, which stand under their tables")
    if validity.unseen:
        lines.append(f"  Not seen here: {', '.join(validity.unseen)}.")
    return "\n".join(lines)


def _settings(settings: Mapping[str, object]) -> str:
    shown = ("rounds", "seconds", "batch_size", "threads", "limit_ms")
    return ", ".join(f"{name.replace('_', ' ')} {settings[name]}" for name in shown if settings[name])
