"""The NVIDIA GPUs of this machine, as the driver's own program describes them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

__all__ = ["Gpu", "nvidia_gpus"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU, as `nvidia-smi` describes it."""

    name: str
    memory_mib: int
    driver: str
    compute_capability: str


def nvidia_gpus() -> tuple[Gpu, ...]:
    """The GPUs that `nvidia-smi` tells of; none where there is no such program, or no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    try:
        answer = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return tuple(Gpu(row[0], int(row[1]), row[2], row[3]) for row in rows if len(row) == 4 and row[1].isdigit())
