"""Watches a GPU through `nvidia-smi`: whether its clock throttles, and who else computes there.

`nvidia-smi` repeats both questions beside the measurement, in processes of their own, and what they answered is read at
the end. Reasons for a lower clock are bits that NVIDIA documents with NVML's `nvmlClocksEventReasons`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from fmmt_deploy.benchmark.validity import Seen

__all__ = [
    "GpuSample",
    "GpuWitness",
    "Recorder",
    "gpu_in_use",
    "gpu_samples",
    "process_ids",
    "recorded_by_nvidia_smi",
]

THROTTLING = {
    0x08: "its hardware slowed it down",
    0x20: "its software slowed it down for heat",
    0x40: "its hardware slowed it down for heat",
    0x80: "its power supply asked it to slow down",
}
"""Reasons that make a measurement invalid. The power cap (0x04) is not among them: under full load it is a card's usual
limit. It is one as soon as the clock falls by more than `CLOCK_LIMIT`."""

POWER_CAP, IDLE = 0x04, 0x01

CLOCK_LIMIT = 0.9
"""The clock under load must not fall below this share of what it was at its best."""

_EVERY_MS = 500
_CLOCKS = "clocks.sm,clocks_event_reasons.active,power.draw,temperature.gpu"
"""Drivers before 535 call the second something else: then the clock is unseen."""

Recorder: TypeAlias = Callable[[Sequence[str]], Callable[[], str]]
"""Starts `nvidia-smi` with arguments, again and again; the result stops it and gives all that it printed."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look: the clock of its multiprocessors, the bits of what holds it down, power and temperature if known."""

    clock_mhz: int
    reasons: int
    watts: float | None
    celsius: float | None


class GpuWitness:
    """Watches one GPU.

    Args:
        gpu: Which, as `nvidia-smi --id` takes it: an index, an UUID or a PCI bus id; None watches none, and says so.
        recorder: Asks.
        own: Process ids that are ours.
    """

    def __init__(self, gpu: str | None, recorder: Recorder | None = None, own: Iterable[int] | None = None) -> None:
        self._gpu, self._recorder = gpu, recorder or recorded_by_nvidia_smi
        self._own = frozenset((os.getpid(),) if own is None else own)
        self._clocks: Callable[[], str] = str
        self._processes: Callable[[], str] = str

    def begin(self) -> None:
        """See `Witness.begin`."""
        if self._gpu is not None:
            self._clocks = self._recorder([f"--id={self._gpu}", f"--query-gpu={_CLOCKS}"])
            self._processes = self._recorder([f"--id={self._gpu}", "--query-compute-apps=pid"])

    def look(self) -> None:
        """See `Witness.look`; this one looks by itself."""

    def end(self) -> Seen:
        """See `Witness.end`."""
        clocks, processes = self._clocks(), self._processes()
        self._clocks = self._processes = str
        one, other = _of_clocks(gpu_samples(clocks)), self._of_processes(process_ids(processes))
        return Seen(one.reasons + other.reasons, one.unseen + other.unseen, one.facts)

    def _of_processes(self, found: frozenset[int]) -> Seen:
        """In a container the ids are the host's, so that we don't know our own: then one process is taken for ours."""
        if not found:
            return Seen(unseen=("whether other processes use the GPU",))
        others = len(found - self._own) if found & self._own else len(found) - 1
        if not others:
            return Seen()
        return Seen((f"Other processes use the GPU: {others} of them.",))


def gpu_samples(text: str) -> tuple[GpuSample, ...]:
    """Reads what `nvidia-smi --query-gpu` printed as CSV without units; lines that are no samples are left out."""
    samples = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        with suppress(ValueError):  # `[N/A]`, or a message
            clock, reasons, watts, celsius = cells
            samples.append(GpuSample(int(clock), int(reasons, 16), _number(watts), _number(celsius)))
    return tuple(samples)


def process_ids(text: str) -> frozenset[int]:
    """Reads what `nvidia-smi --query-compute-apps=pid` printed."""
    return frozenset(int(line) for line in map(str.strip, text.splitlines()) if line.isdecimal())


def recorded_by_nvidia_smi(arguments: Sequence[str]) -> Callable[[], str]:
    """A `Recorder`. Without `nvidia-smi` there is nothing to read, which the witness says."""
    written = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it has been read; a pipe would fill up
    command = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits", f"--loop-ms={_EVERY_MS}"]
    try:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except OSError:
        written.close()
        return str

    def read() -> str:
        process.terminate()
        process.wait()
        with written:
            written.seek(0)
            return written.read()

    return read


def _of_clocks(samples: Sequence[GpuSample]) -> Seen:
    loaded = [sample for sample in samples if not sample.reasons & IDLE]
    if not loaded:
        return Seen(unseen=("the GPU's clock under load",))
    low, high = (f(sample.clock_mhz for sample in loaded) for f in (min, max))
    bits = 0
    for sample in loaded:
        bits |= sample.reasons
    reasons = [f"The GPU's clock throttled: {what}." for bit, what in THROTTLING.items() if bits & bit]
    if low < CLOCK_LIMIT * high:
        cap = ", at its power cap" if bits & POWER_CAP else ""
        reasons.append(f"The GPU's clock fell from {high} MHz to {low} MHz while measuring{cap}.")
    facts = {"gpu_lowest_mhz": float(low), "gpu_highest_mhz": float(high), "gpu_power_capped": float(bits & POWER_CAP)}
    hottest = max((sample.celsius for sample in loaded if sample.celsius is not None), default=None)
    return Seen(tuple(reasons), facts=facts if hottest is None else {**facts, "gpu_highest_celsius": hottest})


def gpu_in_use() -> str | None:
    """What `nvidia-smi --id` calls the GPU that CUDA chooses here; None where that can't be told."""
    try:
        from cuda.bindings import runtime

        error, device = runtime.cudaGetDevice()
        if error == runtime.cudaError_t.cudaSuccess:
            error, name = runtime.cudaDeviceGetPCIBusId(32, device)
            if error == runtime.cudaError_t.cudaSuccess:
                return bytes(name).split(b"\0")[0].decode()
    except (ImportError, OSError, RuntimeError):  # as in `current_gpu`
        pass
    return _gpu_of_pytorch()


def _gpu_of_pytorch() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
