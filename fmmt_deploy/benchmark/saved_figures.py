"""The figures of a saved benchmark (`fmmt.bench/2`) that two runs can be compared by.

Every figure is a slowness: milliseconds, or one over a rate, with bounds. A row of single stream or offline may have
two that mean the same: its speed-up against the published loop of the same run, and its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fmmt_deploy.benchmark.choices import HOST_KINDS
from fmmt_deploy.errors import ArtefactError

__all__ = ["SCHEMA", "Figure", "Rates", "Saved", "Terms", "saved_from_document", "terms_of"]

SCHEMA = "fmmt.bench/2"

Rates: TypeAlias = Mapping[str, tuple[float, float, float]]
"""Of each matrix rate its median, and that median's interval."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one row.

    Attributes:
        workload: The SHA-256 of what was answered.
        engine: As `--engine` names it.
        row: What was measured, in words: boundary, scenario, engine, way, part.
        measure: `speed-up`, or what else of the row: `time`, `p90`, `rate`.
        slowness: The larger the slower.
        bounds: Between which it is; None where there are too few samples to say.
        device: Where the engine computes, as matrix rates are named: `cpu` or `cuda`.
        reasons: Why it is invalid; empty where it is not.
    """

    workload: str
    engine: str
    row: str
    measure: str
    slowness: float
    bounds: tuple[float, float] | None
    device: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What two benchmarks must have in common for their times to be compared.

    Attributes:
        machine: Its processor, cores and GPUs.
        settings: Those that times depend on.
        workloads: What is answered, in words, by SHA-256.
        engines: With the precisions of their graphs, as `--engine` names them.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    workloads: Mapping[str, str]
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved benchmark, as far as two are compared.

    Attributes:
        terms: What it was measured on, and how.
        rates: Matrix rates, by workload.
        figures: All of them.
    """

    terms: Terms
    rates: Mapping[str, Rates]
    figures: tuple[Figure, ...]


def terms_of(
    machine: Mapping[str, object],
    settings: Mapping[str, object],
    workloads: Mapping[str, str],
    engines: Iterable[str],
) -> Terms:
    """Picks the terms out of what a benchmark says of itself; a run that is only planned can say the same.

    Args:
        machine: As in the document.
        settings: As in the document.
        workloads: See `Terms`.
        engines: See `Terms`; each may be named several times.
    """
    return Terms(
        machine={
            "processor": f"{machine['cpu']} ({machine['machine']})",
            "cores": str(machine["cores"]),
            "GPUs": ", ".join(str(gpu.get("name")) for gpu in _maps(machine["gpus"])) or "none",
        },
        settings={name: str(settings.get(name)) for name in ("batch_size", "threads", "limit_ms")},
        workloads=workloads,
        engines=tuple(dict.fromkeys(engines)),
    )


def saved_from_document(document: Mapping[str, object], whose: str) -> Saved:
    """Reads what `fmmt bench --json` says.

    Args:
        document: It, parsed.
        whose: What it is called in messages, such as `the earlier report`.

    Raises:
        ArtefactError: It is of another schema, or something in it is not what it should be.
    """
    if document.get("schema", SCHEMA) != SCHEMA:
        raise ArtefactError(
            f"{whose} should be of the schema {SCHEMA}, found {document['schema']}.", fix="Measure again with --save."
        )
    try:
        return _saved(document)
    except (_MalformedError, KeyError, ValueError) as error:
        raise ArtefactError(f"{whose} is no benchmark.", why=str(error), fix="Measure again with --save.") from error


class _MalformedError(Exception):
    """A value is not of the kind that it should be."""


def _saved(document: Mapping[str, object]) -> Saved:
    machine, settings = _is(dict, document["machine"]), _is(dict, document["settings"])
    reports = _maps(document["workloads"])
    by_hash = {_is(str, _is(dict, report["workload"])["sha256"]): report for report in reports}
    sources = {key: str(_is(dict, report["workload"])["source"]) for key, report in by_hash.items()}
    figures = tuple(figure for key, report in by_hash.items() for figure in _figures(key, report))
    return Saved(
        terms=terms_of(machine, settings, sources, (figure.engine for figure in figures)),
        rates={key: _rates(report) for key, report in by_hash.items()},
        figures=figures,
    )


def _rates(report: Mapping[str, object]) -> Rates:
    found = {}
    for rate in _maps(report["rates"]):
        found[_is(str, rate["name"])] = (_number(rate["gflops"]), *_interval(rate["gflops_interval"]))
    return found


def _figures(workload: str, report: Mapping[str, object]) -> Iterator[Figure]:
    for boundary in ("device", "engine"):
        for row in _maps(_is(dict, report[boundary])["rows"]):
            words = f"{boundary}, {{}}, {row['part']}"
            yield _figure(workload, row, words, "time", row["ms"], _interval(row["interval_ms"]))
    files = _is(dict, report["files"])
    for scenario, read in _READERS.items():
        if scenario in files:
            table = _is(dict, files[scenario])
            for row in _maps(table["rows"]):
                yield from read(workload, row, f"files, {scenario}, {{}}")
                yield from _speed_up(workload, row, f"files, {scenario}, {{}}", str(table["baseline"]))


def _single_stream(workload: str, row: Mapping[str, object], words: str) -> Iterator[Figure]:
    for percentile in _maps(row["percentiles"]):
        if percentile["percent"] in (50, row["claimed"]):
            measure = "time" if percentile["percent"] == 50 else f"p{percentile['percent']}"
            low, high = percentile["low_ms"], percentile["high_ms"]
            bounds = None if low is None or high is None else (_number(low), _number(high))
            yield _figure(workload, row, words, measure, percentile["ms"], bounds)


def _offline(workload: str, row: Mapping[str, object], words: str) -> Iterator[Figure]:
    rates = _is(dict, row["per_second"])
    low, high = _interval(rates["interval"])
    yield _figure(workload, row, words, "time", 1000 / _number(rates["median"]), (1000 / high, 1000 / low))


def _server(workload: str, row: Mapping[str, object], words: str) -> Iterator[Figure]:
    if row["rate_per_second"] is not None and row["fails_at"] is not None:
        slow = 1000 / _number(row["rate_per_second"])
        yield _figure(workload, row, words, "rate", slow, (1000 / _number(row["fails_at"]), slow))


_READERS: Mapping[str, Callable[[str, Mapping[str, object], str], Iterator[Figure]]] = {
    "single-stream": _single_stream,
    "offline": _offline,
    "server": _server,
}


def _speed_up(workload: str, row: Mapping[str, object], words: str, baseline: str) -> Iterator[Figure]:
    """Against the published loop only: another way of ours may itself have become faster or slower."""
    if row["ratio"] is None or not baseline.endswith(" published"):
        return
    ratio = _is(dict, row["ratio"])
    if ratio["low"] is not None and ratio["high"] is not None:
        bounds = 1 / _number(ratio["high"]), 1 / _number(ratio["low"])
        reasons = {**row, "reasons": [*_is(list, row["reasons"]), *_is(list, ratio["reasons"])]}
        yield _figure(workload, reasons, words, "speed-up", 1 / _number(ratio["median"]), bounds)


def _figure(
    workload: str,
    row: Mapping[str, object],
    words: str,
    measure: str,
    slowness: object,
    bounds: tuple[float, float] | None,
) -> Figure:
    engine = _is(str, row["engine"])
    return Figure(
        workload=workload,
        engine=engine,
        row=words.format(f"{engine} {row['way']}"),
        measure=measure,
        slowness=_number(slowness),
        bounds=bounds,
        device="cpu" if engine.partition(":")[0] in HOST_KINDS else "cuda",
        reasons=tuple(str(reason) for reason in _is(list, row["reasons"])),
    )


def _maps(value: object) -> Sequence[Mapping[str, object]]:
    return [_is(dict, item) for item in _is(list, value)]


def _interval(value: object) -> tuple[float, float]:
    low, high = _is(list, value)
    return _number(low), _number(high)


def _is(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise _MalformedError(f"A {kind.__name__} should be there, found {str(value)[:60]!r}.")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise _MalformedError(f"A positive number should be there, found {str(value)[:60]!r}.")
    return float(value)
