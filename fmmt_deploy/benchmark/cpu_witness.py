"""Watches the processors: what others took of them, what a hypervisor or a quota kept back, whether they slowed down.

Linux tells all of this in `/proc` and `/sys`; elsewhere, and where a virtual machine hides it, it is said to be unseen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from fmmt_deploy.benchmark.validity import Seen

__all__ = ["CLOCK_LIMIT", "OTHERS_LIMIT", "STEAL_LIMIT", "CpuTimes", "CpuWitness", "cpu_times"]

OTHERS_LIMIT = 0.05
"""Share of our processors' time that other processes may take: what a quiet system does beside."""

STEAL_LIMIT = 0.02
"""Share of our processors' time that a hypervisor may give to other machines."""

CLOCK_LIMIT = 0.9
"""The fastest processor's clock right after work must not fall below this share of what it was at its best."""

_SHORTEST_SECONDS = 0.2
"""Ticks are hundredths of a second: of less time than this nothing can be said."""

_PAUSE_SECONDS = 0.5
"""Clocks are read no more often than this."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds that processors have spent since the machine started."""

    busy: float
    steal: float
    total: float


def cpu_times(stat: str, processors: Collection[int], ticks: int) -> CpuTimes | None:
    """Reads `/proc/stat`.

    Args:
        stat: Its text; see `man 5 proc_stat` for the columns.
        processors: Which are ours.
        ticks: A second has so many.

    Returns:
        The sum over our processors; None where the text tells of none of them.
    """
    busy = steal = total = 0.0
    for line in stat.splitlines():
        name, *columns = line.split()
        if not (name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in processors):
            continue
        user, nice, system, idle, iowait, irq, softirq, stolen = (int(c) / ticks for c in (*columns, *"00000000")[:8])
        busy += user + nice + system + irq + softirq
        steal += stolen
        total += user + nice + system + idle + iowait + irq + softirq + stolen
    return CpuTimes(busy, steal, total) if total else None


class CpuWitness:
    """Compares what all processes used of our processors with what this one and its children used.

    Args:
        root: Where `/proc` and `/sys` are.
        processors: Which are ours; default those that this process may use.
        own_seconds: Processor time of this process and its children.
        ticks: A second of `/proc/stat` has so many.
        clock: Seconds.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        processors: Collection[int] | None = None,
        own_seconds: Callable[[], float] | None = None,
        ticks: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._root, self._clock = root, clock
        self._processors = frozenset(_own_processors() if processors is None else processors)
        self._own_seconds = own_seconds or _own_seconds
        self._ticks = ticks or os.sysconf("SC_CLK_TCK")
        self._clocks: list[int] = []
        self._next_look = 0.0

    def begin(self) -> None:
        """See `Witness.begin`."""
        self._clocks, self._next_look = [], self._clock()
        self._times, self._own = self._cpu_times(), self._own_seconds()
        self._throttled, self._quota = self._throttle_count(), self._quota_count()

    def look(self) -> None:
        """See `Witness.look`."""
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + _PAUSE_SECONDS
            if (clock := self._fastest_mhz()) is not None:
                self._clocks.append(clock)

    def end(self) -> Seen:
        """See `Witness.end`."""
        seen = [self._of_others(), self._of_throttling(), self._of_quota(), self._of_clocks()]
        return Seen(
            tuple(reason for one in seen for reason in one.reasons),
            tuple(what for one in seen for what in one.unseen),
            {name: value for one in seen for name, value in one.facts.items()},
        )

    def _of_others(self) -> Seen:
        before, after, own = self._times, self._cpu_times(), self._own_seconds() - self._own
        unseen = "what other processes take of the processors"
        if before is None or after is None:
            return Seen(unseen=(unseen,))
        total, allowance = after.total - before.total, 2 * len(self._processors) / self._ticks
        if total < _SHORTEST_SECONDS * len(self._processors):
            return Seen(unseen=(f"{unseen}, in less than {_SHORTEST_SECONDS} s",))
        others = max(0.0, after.busy - before.busy - own - allowance) / total
        steal = (after.steal - before.steal) / total
        reasons = []
        if others > OTHERS_LIMIT:
            reasons.append(f"Other processes took {others:.0%} of the processors; the limit is {OTHERS_LIMIT:.0%}.")
        if steal > STEAL_LIMIT:
            reasons.append(
                f"The hypervisor gave {steal:.0%} of the processors to others; the limit is {STEAL_LIMIT:.0%}."
            )
        return Seen(tuple(reasons), facts={"others_share": others, "steal_share": steal})

    def _of_throttling(self) -> Seen:
        after = self._throttle_count()
        if self._throttled is None or after is None:
            return Seen(unseen=("whether the processors' clock throttles for heat",))
        times = after - self._throttled
        reason = f"The processors' clock throttled {times} times, for heat or power."
        return Seen((reason,) if times else (), facts={"throttled": times})

    def _of_quota(self) -> Seen:
        after = self._quota_count()
        if self._quota is None or after is None or after == self._quota:  # no quota is no gap
            return Seen()
        return Seen((f"A quota stopped this process {after - self._quota} times.",))

    def _of_clocks(self) -> Seen:
        if not self._clocks:
            return Seen(unseen=("the processors' clock",))
        low, high = min(self._clocks), max(self._clocks)
        fell = f"The processors' clock fell from {high} MHz to {low} MHz while measuring."
        facts = {"lowest_mhz": float(low), "highest_mhz": float(high)}
        return Seen((fell,) if low < CLOCK_LIMIT * high else (), facts=facts)

    def _cpu_times(self) -> CpuTimes | None:
        text = _read(self._root / "proc/stat")
        return None if text is None else cpu_times(text, self._processors, self._ticks)

    def _throttle_count(self) -> int | None:
        counts = [self._of_processor(p, "thermal_throttle/core_throttle_count") for p in self._processors]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def _quota_count(self) -> int | None:
        text = _read(self._root / "sys/fs/cgroup/cpu.stat") or ""
        counts = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
        return int(counts["nr_throttled"]) if "nr_throttled" in counts else None

    def _fastest_mhz(self) -> int | None:
        clocks = [self._of_processor(p, "cpufreq/scaling_cur_freq") for p in self._processors]
        return max((clock // 1000 for clock in clocks if clock is not None), default=None)

    def _of_processor(self, processor: int, name: str) -> int | None:
        text = _read(self._root / f"sys/devices/system/cpu/cpu{processor}/{name}")
        return int(text) if text is not None and text.strip().isdecimal() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not there, or not for us: then it is unseen
        return None


def _own_processors() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
