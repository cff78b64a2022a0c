"""Two or more contenders in alternating blocks (A B B A …), and the ratio of their speeds over paired blocks.

Speeds of a shared machine drift within minutes, so contenders take turns and are compared within a round, where all of
them answer the same queries. In its turn a contender answers them again and again until two windows of that agree; the
first of three is what switching contenders costs. What is resampled for a ratio's interval are rounds: samples of one
block share whatever the machine was doing, and are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from time import perf_counter

import numpy as np

from fmmt_deploy.benchmark.statistics import DoubleArray, median_interval
from fmmt_deploy.errors import FmmtError

__all__ = [
    "FEWEST_BLOCKS",
    "Block",
    "BlockRatio",
    "block_ratio",
    "interleaved",
    "pooled_ms",
    "settling_reasons",
]

TOLERANCE = 0.1
"""By how much two windows of the same queries may differ, and the first half of a run from the second."""

MAX_WINDOWS = 4
FEWEST_BLOCKS = 6
"""Of fewer pairs no interval of a median has 95 %: all of six are on one side of it in one case of 32."""

UNSETTLED_SHARE = 0.1


@dataclass(frozen=True)
class Block:
    """One turn of a contender.

    Attributes:
        contender: Whose.
        round: Which; contenders are compared within a round.
        started_s: When its kept windows began, in seconds since the run did.
        windows_ms: Milliseconds of each query, of the last two windows: `(2, queries)`, the same queries in each.
        discarded: How many windows came before.
        difference: By how much the two windows differ: the median over queries, as a share.
    """

    contender: str
    round: int
    started_s: float
    windows_ms: tuple[tuple[float, ...], tuple[float, ...]]
    discarded: int
    difference: float

    @property
    def total_ms(self) -> float:
        """Milliseconds of one window, on average."""
        return sum(map(sum, self.windows_ms)) / 2

    def settled(self, tolerance: float = TOLERANCE) -> bool:
        """Whether its windows agree."""
        return self.difference <= tolerance


@dataclass(frozen=True, slots=True)
class BlockRatio:
    """How many times faster a candidate is than a baseline.

    Attributes:
        median: Of the rounds' ratios of the baseline's time to the candidate's.
        low: Of the interval; None of fewer than `FEWEST_BLOCKS` rounds.
        high: Likewise.
        confidence: Of the interval, at least.
        blocks: Rounds.
        drift: The median ratio of the later half over that of the earlier half.
        reasons: Why it can't be relied on; empty where it can.
    """

    median: float
    low: float | None
    high: float | None
    confidence: float
    blocks: int
    drift: float
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {**asdict(self), "valid": not self.reasons, "reasons": list(self.reasons)}


def interleaved(
    contenders: Mapping[str, Callable[[int], Sequence[float]]],
    rounds: int,
    *,
    tolerance: float = TOLERANCE,
    max_windows: int = MAX_WINDOWS,
    enough: Callable[[], bool] = lambda: False,
    between: Callable[[], object] = lambda: None,
    sits_out: Callable[[str], bool] = lambda _: False,
    failed: Callable[[str, FmmtError], object] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[Block, ...]:
    """Lets every contender take its turn in every round; every other round they go in the opposite order.

    Args:
        contenders: By name, what answers a round's queries (the same for the same number of the round, whoever is
            asked) and returns the milliseconds of each.
        rounds: How many, at most.
        tolerance: By how much two windows of a block may differ.
        max_windows: Of a block, at least 2; after so many it counts as unsettled.
        enough: Asked after every round whether to stop.
        between: Called before every round, to sample what else drifts.
        sits_out: Asked before every turn of a contender whether it has none in this round.
        failed: Told of a contender whose turn fails and leaves no block; by default that is an error.
        clock: In seconds.

    Returns:
        The blocks in the order in which they were measured; in each round, one of every contender that takes part.

    Raises:
        FmmtError: There is no round, or less than two windows, or a contender fails.
    """
    if rounds < 1 or max_windows < 2:
        raise FmmtError(f"Blocks need a round and two windows, found {rounds} and {max_windows}.")
    begin, blocks = clock(), list[Block]()
    for number in range(rounds):
        if number and enough():
            break
        between()
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            if sits_out(name):
                continue
            try:
                blocks.append(_block(name, number, contenders[name], tolerance, max_windows, lambda: clock() - begin))
            except FmmtError as error:
                if failed is None:
                    raise
                failed(name, error)
    return tuple(blocks)


def pooled_ms(blocks: Sequence[Block], contender: str) -> tuple[float, ...]:
    """A contender's raw samples; every query of a block is in them twice, so they count as half as many."""
    return tuple(ms for b in blocks if b.contender == contender for window in b.windows_ms for ms in window)


def settling_reasons(blocks: Sequence[Block], contender: str, tolerance: float = TOLERANCE) -> tuple[str, ...]:
    """Why a contender's times did not settle; empty where at least nine of ten blocks did."""
    own = [block for block in blocks if block.contender == contender]
    wrong = [block.difference for block in own if not block.settled(tolerance)]
    if len(wrong) <= UNSETTLED_SHARE * len(own):
        return ()
    return (
        f"{len(wrong)} of {len(own)} blocks of {contender} never settled: the same queries in two windows differ by up "
        f"to {max(wrong):.0%}, {tolerance:.0%} is allowed",
    )


def block_ratio(
    blocks: Sequence[Block],
    baseline: str,
    candidate: str,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
    tolerance: float = TOLERANCE,
) -> BlockRatio:
    """How many times faster the candidate is: the median over rounds, with a bootstrap interval over rounds.

    The interval is that of `median_interval`, and there is none of fewer rounds than it needs.

    Args:
        blocks: Of `interleaved`.
        baseline: The contender that the ratio is of.
        candidate: The other one.
        confidence: Of the interval.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
        tolerance: By how much windows, and halves of the run, may differ.

    Raises:
        FmmtError: A contender has no block, or the two are not in the same rounds.
    """
    ratios = _paired_ratios(blocks, baseline, candidate)
    ends = median_interval(ratios, confidence, seed=seed, resamples=resamples)
    low, high = ends[:2] if ends[2] >= confidence else (None, None)
    drift = _drift(ratios)
    reasons = [r for name in (baseline, candidate) for r in settling_reasons(blocks, name, tolerance)]
    if low is None:
        reasons.append(f"an interval needs at least {FEWEST_BLOCKS} rounds of both, there are {len(ratios)}")
    if max(drift, 1 / drift) > 1 + tolerance:
        reasons.append(f"the ratio drifted by {max(drift, 1 / drift) - 1:.0%} from the run's first half to its second")
    return BlockRatio(float(np.median(ratios)), low, high, confidence, len(ratios), drift, tuple(reasons))


def _block(
    name: str,
    number: int,
    answer: Callable[[int], Sequence[float]],
    tolerance: float,
    max_windows: int,
    now: Callable[[], float],
) -> Block:
    starts, windows, difference = list[float](), list[tuple[float, ...]](), float("inf")
    while len(windows) < 2 or (difference > tolerance and len(windows) < max_windows):
        starts.append(now())
        windows.append(tuple(answer(number)))
        if len(windows) > 1:
            difference = _difference(windows[-2], windows[-1])
    return Block(name, number, starts[-2], (windows[-2], windows[-1]), len(windows) - 2, difference)


def _difference(earlier: Sequence[float], later: Sequence[float]) -> float:
    """By how much one window is slower than the other, whichever: of the median over queries, as a share."""
    if not earlier or len(earlier) != len(later):
        raise FmmtError(f"Windows of a block answer the same queries, found {len(earlier)} and {len(later)}.")
    ratio = median(b / a for a, b in zip(earlier, later, strict=True))
    return max(ratio, 1 / ratio) - 1


def _paired_ratios(blocks: Sequence[Block], baseline: str, candidate: str) -> DoubleArray:
    times = [{b.round: b.total_ms for b in blocks if b.contender == name} for name in (baseline, candidate)]
    if not times[0] or times[0].keys() != times[1].keys():
        raise FmmtError(f"{baseline} and {candidate} must be in the same rounds, and at least one.")
    return np.array([times[0][number] / times[1][number] for number in sorted(times[0])])


def _drift(ratios: DoubleArray) -> float:
    half = ceil(len(ratios) / 2)
    return float(np.median(ratios[-half:]) / np.median(ratios[:half]))
