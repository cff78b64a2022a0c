"""A program that trains in children, and kills them: `python -m tests.training.killing FOLDER SEED KILLS`.

It has imported everything and computed nothing when it forks, so that a child is at its first step at once.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.training.sources import train_and_report

DROP = 0.1
LONGEST = 0.45
"""Of a child that is killed, as a share of the time that a whole training takes here."""
LEAST = 2
"""Kills, or it is tried again."""


def child(folder: Path, save_minutes: float) -> int:
    """Starts a training, or goes on with it."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        train_and_report(folder, DROP, save_minutes)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def killed(pid: int, seconds: float) -> bool:
    """Kills a child after some time; False where it ended by itself before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def finished(pid: int) -> None:
    """Waits for a child."""
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"a child ended with {status}")


def main(folder: Path, seed: int, kills: int) -> None:
    """Trains once as it is, and then with kills, where the state is saved after each step, or each phase only."""
    draws = random.Random(seed)
    began = time.monotonic()
    finished(child(folder / "whole", 1000.0))
    whole_s = time.monotonic() - began
    for name, save_minutes in (("steps", 0.0), ("phases", 1000.0)):
        longest = LONGEST * whole_s
        while (count := killed_often(folder / name, save_minutes, kills, longest, draws)) < LEAST:
            shutil.rmtree(folder / name, ignore_errors=True)
            longest /= 2  # the machine was busier before than it is now
        (folder / name / "kills").write_text(str(count))


def killed_often(folder: Path, save_minutes: float, kills: int, longest_s: float, draws: random.Random) -> int:
    """A training that is killed and gone on with until it is finished; how often it was killed."""
    for count in range(kills):
        if not killed(child(folder, save_minutes), draws.uniform(0.2, 1) * longest_s):
            return count
    finished(child(folder, save_minutes))
    return kills


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
