"""How fast: three boundaries that are never mixed, scenarios, stages, and what the machine could do."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.report.blocks import Block, Charts, Figure, Heading, Listing, Numbers, Paragraph, Section, Table
from fmmt_deploy.report.charts.bars import Amount, Stage, amounts_chart, waterfall_chart
from fmmt_deploy.report.charts.latency import LatencyRow, latency_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Evidence, Facts
from fmmt_deploy.report.figures import NONE, ms, number, short
from fmmt_deploy.report.sections.calls import call_blocks, cold_blocks, roofline_blocks
from fmmt_deploy.report.sections.contenders import contender, engine_colours, ratio_words, validity_mark, validity_word
from fmmt_deploy.report.sections.reasons import reason_lines

__all__ = ["SCENARIOS", "scenario_table", "speed_section"]

_FEW = 3

SCENARIOS = {
    "single-stream": "Single stream: the next utterance when the last is answered",
    "server": "Server: utterances arrive at random (Poisson)",
    "offline": "Offline: all utterances at once",
}


def speed_section(facts: Facts) -> Section:
    """The latest benchmark."""
    words = (
        "Three boundaries, never mixed: compute alone, with inputs already where the engine computes; engine calls "
        "with their copies; and from files to labels. The scenarios have MLPerf's names and not its rules. Figures "
        "of engines that took turns in one run may be compared, others may not."
    )
    blocks: list[Block] = [Paragraph(words, "lead")]
    blocks += _bench(facts.bench) if facts.bench is not None else [Paragraph("Not measured: run `fmmt bench`.", "note")]
    return Section("speed", "Speed", tuple(blocks), new_sheet=True)


def _bench(evidence: Evidence) -> Iterator[Block]:
    document = evidence.document
    if evidence.state == "stale":
        yield Paragraph(f"Stale: {evidence.why}. What follows is of the bundle as it was then.", "note")
    yield Paragraph(f"{validity_word(document)[2:] or 'Not judged'}; receipt `{evidence.path}`.")
    yield from _reasons(reason_lines(document))
    if document["unseen"].texts:
        yield Paragraph(f"Not watched here: {'; '.join(document['unseen'].texts)}.", "note")
    for workload in document["workloads"]:
        yield from _workload(workload)
    yield from cold_blocks(document["cold_start"])


def _reasons(reasons: tuple[str, ...]) -> Iterator[Block]:
    """Why it is invalid: the first few, and all of them for who asks."""
    if reasons:
        yield Listing(reasons[:_FEW])
    if reasons[_FEW:]:
        rows = [(str(place + 1), reason) for place, reason in enumerate(reasons)]
        yield Table(("", "~reason"), rows, folded=f"All {len(reasons)} reasons")


def _workload(report: Document) -> Iterator[Block]:
    about = report["workload"]
    yield Heading(f"Workload: {about['source'].text}")
    items = tuple((name, number(about[name].number), "") for name in ("dialogues", "utterances", "tokens", "faces"))
    rates = tuple((rate["name"].text, short(rate["gflops"].number), "GFLOP/s, measured") for rate in report["rates"])
    yield Numbers((*items, *rates))
    for scenario, title in SCENARIOS.items():
        if report["files"][scenario]:
            yield from _scenario(scenario, title, report["files"][scenario])
    yield from _stages(report["files"]["stages"])
    yield from call_blocks(report)
    yield from roofline_blocks(report)


def scenario_table(name: str, found: Document) -> Table:
    """The figures of one scenario."""
    tables = {"single-stream": _latency_table, "offline": _offline_table}
    return tables.get(name, _server_table)(list(found["rows"]))


def _scenario(name: str, title: str, found: Document) -> Iterator[Block]:
    yield Heading(f"{title}, from files to labels")
    rows = list(found["rows"])
    colours = engine_colours(rows)
    if name == "single-stream":
        latencies = [_latency_row(row, colours[row["engine"].text]) for row in rows]
        svg = latency_chart("Latency of an utterance", latencies, "time from files to label")
        yield Charts((Figure(svg, "Latency.", "Bars: how many utterances took so long."),), scenario_table(name, found))
    elif name == "offline":
        amounts = [_amount(row, colours[row["engine"].text]) for row in rows if row["per_second"]["median"].number]
        svg = amounts_chart("Throughput", amounts, "utterances a second; line: lowest to highest repetition")
        yield Charts((Figure(svg, "Throughput."),), scenario_table(name, found))
    else:
        yield scenario_table(name, found)
    baseline = found["baseline"].text
    if baseline:
        yield Paragraph(f"Ratios are against `{baseline}`, over interleaved blocks, with their interval.")


def _latency_row(row: Document, colour: int) -> LatencyRow:
    distribution = row["distribution"]
    return LatencyRow(
        contender(row),
        tuple(
            (f"p{p['percent'].count}", time)
            for p in row["percentiles"]
            if (time := p["ms"].number) and p["percent"].count
        ),
        distribution["edges_ms"].numbers,
        distribution["counts"].numbers,
        colour,
        row["valid"].flag is not False,
    )


def _latency_table(rows: list[Document]) -> Table:
    percents = sorted({p["percent"].count or 0 for row in rows for p in row["percentiles"]})
    cells = []
    for row in rows:
        by_percent = {p["percent"].count: p for p in row["percentiles"]}
        times = (_percentile(by_percent.get(percent_, Document())) for percent_ in percents)
        cells.append((contender(row), *times, ratio_words(row["ratio"]), validity_mark(row)))
    heads = ("", *(f">p{percent_}" for percent_ in percents), ">faster", "")
    return Table(heads, cells, "Latency; (?) where there are too few samples to claim it")


def _percentile(found: Document) -> str:
    return f"{ms(found['ms'].number)}{' (?)' if found['valid'].flag is False else ''}"


def _amount(row: Document, colour: int) -> Amount:
    rate = row["per_second"]
    middle = rate["median"].number or 0.0
    low, high = rate["lowest"].number or middle, rate["highest"].number or middle
    words = f"{short(middle)} a second"
    return Amount(contender(row), middle, low, high, words, colour, row["valid"].flag is not False)


def _offline_table(rows: list[Document]) -> Table:
    cells = [
        (
            contender(row),
            short(row["per_second"]["median"].number),
            f"{short(row['per_second']['lowest'].number)} to {short(row['per_second']['highest'].number)}",
            number(row["repetitions"].number),
            ratio_words(row["ratio"]),
            validity_mark(row),
        )
        for row in rows
    ]
    return Table(("", ">a second", ">range", ">times", ">faster", ""), cells, "Utterances a second")


def _server_table(rows: list[Document]) -> Table:
    cells = [
        (
            contender(row),
            NONE if row["rate_per_second"].number is None else f"{short(row['rate_per_second'].number)} a second",
            NONE if row["fails_at"].number is None else f"{short(row['fails_at'].number)} a second",
            f"p{row['percent'].count or NONE} under {ms(row['limit_ms'].number)}",
            validity_mark(row),
        )
        for row in rows
    ]
    return Table(("", ">largest rate shown to hold", ">not shown at", "limit", ""), cells, "Rates that a server holds")


def _stages(stages: Document) -> Iterator[Block]:
    by_contender: dict[str, list[Document]] = {}
    for row in stages["rows"]:
        by_contender.setdefault(contender(row), []).append(row)
    figures = []
    longest = max((sum(row["ms"].number or 0.0 for row in rows) for rows in by_contender.values()), default=0.0)
    colours = engine_colours(stages["rows"])
    for name, rows in by_contender.items():
        listed = [Stage(row["stage"].text, time) for row in rows if (time := row["ms"].number) is not None]
        if listed:
            svg = waterfall_chart(f"Stages of {name}", listed, colours[rows[0]["engine"].text], longest)
            figures.append(Figure(svg, f"{name}.", "Mean of an utterance."))
    if not figures:
        return
    yield Heading("Where the time from files to labels goes")
    yield Charts(tuple(figures))
    if stages["validity"]["valid"].flag is False:
        yield Paragraph(f"INVALID: {'; '.join(stages['validity']['reasons'].texts)}", "note")
