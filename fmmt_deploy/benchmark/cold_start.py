"""Cold start of one engine, each in a process of its own: this module, run with `python -m`.

From when the process was begun until the bundle is open; its first answer; what later answers take; and memory. Files
that were read before lie in the system's cache: it is not emptied.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, time

from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.benchmark.validity import Validity
from fmmt_deploy.bundle.precisions import text_from_precisions
from fmmt_deploy.errors import FmmtError

__all__ = ["ColdStart", "Start", "cold_start", "start_process"]

_STEADY_SECONDS, _FEWEST, _MOST = 1.0, 3, 20
"""Answers after the first are given for so long, but so often at least and at most."""


@dataclass(frozen=True, slots=True)
class Start:
    """One process.

    Attributes:
        open_ms: From its beginning until the engines are open: Python, libraries, reading or deserialising graphs.
        first_ms: The first answer to the bundle's self-test, with whatever is compiled or allocated for it.
        steady_ms: Later ones, their median.
        peak_bytes: Largest resident memory, not counting a GPU's.
        gpu_bytes: Of the GPU's memory, what it holds after answering, besides CUDA's own context; None without a GPU.
    """

    open_ms: float
    first_ms: float
    steady_ms: float
    peak_bytes: int
    gpu_bytes: int | None


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One engine's processes; figures are their medians."""

    engine: str
    starts: tuple[Start, ...]

    def median(self, name: str) -> float | None:
        """Of a figure, over all processes."""
        values = [value for start in self.starts if (value := getattr(start, name)) is not None]
        return median(values) if values else None

    def to_json(self, table: Validity) -> dict[str, object]:
        """Plain values, invalid where the whole table is."""
        names = ("open_ms", "first_ms", "steady_ms", "peak_bytes", "gpu_bytes")
        return {
            "engine": self.engine,
            **{name: self.median(name) for name in names},
            "starts": [asdict(start) for start in self.starts],
            "valid": table.valid,
            "reasons": list(table.reasons),
        }


def cold_start(bundle: Path, choice: Choice, threads: int, cache: Path | None = None, processes: int = 1) -> ColdStart:
    """Starts processes that open a bundle and answer its self-test, one after the other.

    Raises:
        FmmtError: A process failed.
    """
    return ColdStart(choice.name, tuple(start_process(bundle, choice, threads, cache) for _ in range(processes)))


def start_process(bundle: Path, choice: Choice, threads: int, cache: Path | None = None) -> Start:
    """Starts one; see `cold_start`."""
    precision = text_from_precisions(choice.precisions)
    own = [str(bundle), choice.kind, precision, str(threads), str(time()), *([str(cache)] if cache else [])]
    done = subprocess.run([sys.executable, "-m", __name__, *own], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FmmtError(f"Measuring the cold start of {choice.name} failed.", why=done.stderr.strip()[-500:])
    return Start(**json.loads(done.stdout.splitlines()[-1]))  # a library may have printed before


def _main(bundle: str, kind: str, precision: str, threads: str, begun: str, *cache: str) -> None:
    from fmmt_deploy.benchmark.choices import choice_from_option
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.engines.load import open_engines

    opened = Bundle.open(Path(bundle), verify=False)
    choice = choice_from_option(f"{kind}:{precision}", opened.manifest.architecture)
    stages, held = self_test_of(opened), _gpu_memory_held(choice)
    with open_engines(opened, choice.kind, choice.precisions, int(threads), Path(cache[0]) if cache else None) as all_:
        open_ms = 1000 * (time() - float(begun))

        def answer() -> float:
            start = perf_counter()
            for graph, stage in stages.items():
                all_[graph].run(stage.inputs)
            return 1000 * (perf_counter() - start)

        first_ms = answer()
        found = Start(open_ms, first_ms, median(_repeated(answer)), _own_peak_bytes(), held())
    json.dump(asdict(found), sys.stdout)


def _repeated(answer: Callable[[], float]) -> Sequence[float]:
    times = list[float]()
    while len(times) < _FEWEST or (len(times) < _MOST and sum(times) < 1000 * _STEADY_SECONDS):
        times.append(answer())
    return times


def _gpu_memory_held(choice: Choice) -> Callable[[], int | None]:
    """What tells how much of the GPU's memory was taken since; nothing for an engine on the host."""
    if choice.device == "cpu":
        return lambda: None
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError):
        return lambda: None

    def free() -> int | None:
        error, bytes_free, _ = runtime.cudaMemGetInfo()
        return int(bytes_free) if error == runtime.cudaError_t.cudaSuccess else None

    before = free()
    return lambda: None if before is None or (now := free()) is None else before - now


def _own_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss, it forgets the process that this one was forked from
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    _main(*sys.argv[1:])
