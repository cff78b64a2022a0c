"""From files to labels: single stream and offline, every side in turns over the same queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fmmt_deploy.benchmark.blocks import Block, BlockRatio, block_ratio, pooled_ms, settling_reasons
from fmmt_deploy.benchmark.queries import Query, drawn_rounds, timed
from fmmt_deploy.benchmark.rate_search import Server
from fmmt_deploy.benchmark.scenarios import Offline, SingleStream, offline_from_seconds, single_stream_from_samples
from fmmt_deploy.benchmark.sides import Side
from fmmt_deploy.benchmark.turns import Effort, turns
from fmmt_deploy.benchmark.validity import Validity, together

__all__ = ["Figure", "offline_figures", "single_stream_figures"]

QUERIES_A_ROUND = 8
"""Of single stream: with six rounds there are enough for a bound of p90, which takes 44."""

_MOST_BINS = 24


@dataclass(frozen=True)
class Figure:
    """What one side does in one scenario.

    Attributes:
        engine: As `--engine` names it.
        way: How it works.
        cache: Whether a dialogue is encoded once; None for a model that reads no text.
        result: What was measured.
        ratio: How many times as fast as the baseline; None for the baseline itself.
        validity: Whether to believe it.
        blocks: Its turns.
    """

    engine: str
    way: str
    cache: bool | None
    result: SingleStream | Offline | Server
    ratio: BlockRatio | None
    validity: Validity
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    def to_json(self, table: Validity) -> dict[str, object]:
        """Plain values, invalid where the whole table is."""
        judged = together((self.validity, table))
        return {
            "engine": self.engine,
            "way": self.way,
            "cache": self.cache,
            **self.result.to_json(),
            "distribution": _distribution(self.result),
            "ratio": None if self.ratio is None else self.ratio.to_json(),
            "valid": judged.valid,
            "reasons": list(judged.reasons),
        }


def single_stream_figures(sides: Sequence[Side], queries: Sequence[Query], effort: Effort) -> tuple[Figure, ...]:
    """One utterance at a time; in every round all sides answer the same, which were drawn for it.

    Args:
        sides: The first is the baseline.
        queries: What is drawn from, with replacement.
        effort: How long.

    Returns:
        One a side; in haste perhaps of fewer, and without the baseline there is no ratio.
    """
    rounds = drawn_rounds(queries, QUERIES_A_ROUND)

    def answered(side: Side, number: int) -> list[float]:
        return timed(side.answering, rounds(number), effort.clock)

    blocks = turns({side.name: partial(answered, side) for side in sides}, effort)

    def result(own: Sequence[Block], name: str) -> SingleStream:
        return single_stream_from_samples(pooled_ms(own, name), independent=QUERIES_A_ROUND * len(own))

    return _figures(sides, blocks, result)


def offline_figures(sides: Sequence[Side], queries: Sequence[Query], effort: Effort) -> tuple[Figure, ...]:
    """All utterances at once, again and again; see `single_stream_figures`."""

    def answered(side: Side, _: int) -> list[float]:
        start = effort.clock()
        side.answering.answer(queries)
        return [1000 * (effort.clock() - start)]

    blocks = turns({side.name: partial(answered, side) for side in sides}, effort)

    def result(own: Sequence[Block], _: str) -> Offline:
        return offline_from_seconds(len(queries), [block.total_ms / 1000 for block in own])

    return _figures(sides, blocks, result)


def _distribution(result: SingleStream | Offline | Server) -> dict[str, list[float]] | None:
    """How many latencies lie between edges, in milliseconds; of single stream alone."""
    if not isinstance(result, SingleStream):
        return None
    counts, edges = np.histogram(result.samples_ms, bins=min(_MOST_BINS, len(result.samples_ms)))
    return {"edges_ms": edges.tolist(), "counts": counts.tolist()}


def _figures(
    sides: Sequence[Side], blocks: tuple[Block, ...], result: Callable[[Sequence[Block], str], SingleStream | Offline]
) -> tuple[Figure, ...]:
    figures, measured, baseline = [], {block.contender for block in blocks}, sides[0].name
    for side in (side for side in sides if side.name in measured):
        own = tuple(block for block in blocks if block.contender == side.name)
        found = result(own, side.name)
        ratio = _ratio(blocks, baseline, own) if side.name != baseline and baseline in measured else None
        reasons = (*found.reasons, *settling_reasons(blocks, side.name))
        figures.append(Figure(side.choice.name, side.way, side.cache, found, ratio, Validity(reasons), own))
    return tuple(figures)


def _ratio(blocks: Sequence[Block], baseline: str, own: Sequence[Block]) -> BlockRatio:
    """Over the rounds in which the side took part, which in haste may be fewer than the baseline's."""
    rounds = {block.round for block in own}
    return block_ratio([block for block in blocks if block.round in rounds], baseline, own[0].contender)
