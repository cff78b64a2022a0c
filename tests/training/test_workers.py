"""Batches made in other processes: in order, ended with the training, errors as they are."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from fmmt_deploy.errors import DataError, EnvironmentProblem
from fmmt_deploy.interrupts import SIGNALS
from fmmt_deploy.training import workers
from fmmt_deploy.training.workers import made_ahead


def slow(key: int) -> tuple[int, int]:
    time.sleep(0.02 * (key % 3))
    return key, os.getpid()


def failing(key: int) -> int:
    if key == 2:
        raise DataError("face 2 is damaged", why="It breaks off.", fix="Replace it.", path="2.jpg")
    return key


def buggy(key: int) -> int:
    return 1 // key


def killed(key: int, parent: int) -> int:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return key


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_was_asked_for_comes_in_order(count: int) -> None:
    made = list(made_ahead(slow, range(10), count))
    assert [key for key, _ in made] == list(range(10))
    pids = {pid for _, pid in made}
    assert pids == {os.getpid()} if count == 0 else len(pids) == count and os.getpid() not in pids
    assert multiprocessing.active_children() == []


def test_nothing_asked_for_starts_nothing() -> None:
    assert list(made_ahead(slow, [], 2)) == []


def test_workers_end_with_a_training_that_stops_early() -> None:
    made = made_ahead(slow, range(1000), 2)
    next(made)
    assert len(multiprocessing.active_children()) == 2
    made.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_arrives_as_it_is(count: int) -> None:
    made = made_ahead(failing, range(5), count)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(DataError) as raised:
        next(made)
    assert str(raised.value) == "face 2 is damaged\nIt breaks off.\nReplace it."
    assert raised.value.path == "2.jpg"
    assert multiprocessing.active_children() == []


def test_our_own_bug_keeps_its_type() -> None:
    with pytest.raises(ZeroDivisionError):
        list(made_ahead(buggy, range(2), 1))


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(EnvironmentProblem, match="was killed") as raised:
        list(made_ahead(partial(killed, parent=os.getpid()), range(3), 1))
    assert "run.workers" in raised.value.fix


@pytest.mark.parametrize("number", SIGNALS)
def test_workers_leave_ctrl_c_and_the_like_to_the_training(number: signal.Signals) -> None:
    """A terminal, or a scheduler, sends it to all; the training makes its last step, and saves."""
    made = made_ahead(slow, range(30), 2)
    first = next(made)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, number)
    assert [key for key, _ in (first, *made)] == list(range(30))


class Unshareable:
    def share_memory(self) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_full_shared_memory_is_told() -> None:
    def make(_: int) -> Unshareable:
        return Unshareable()

    with pytest.raises(EnvironmentProblem, match="Shared memory is full") as raised:
        list(made_ahead(make, range(3), 1))
    assert "No space left" in raised.value.why
    assert len(list(made_ahead(make, range(3), 0))) == 3


def test_the_training_s_own_draws_stay_what_they_are() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(made_ahead(slow, range(2), 1))
    assert torch.rand(1) == expected


def test_without_fork_batches_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "can_fork", lambda: False)
    assert {pid for _, pid in made_ahead(slow, range(3), 2)} == {os.getpid()}


LEFT_OPEN = """
import os, sys
from fmmt_deploy.training.workers import made_ahead
made = made_ahead(lambda key: os.getpid(), range(10_000), 2)
print(next(made), next(made))
sys.exit(3)
"""
"""As where an interrupt comes between two batches, and nobody closes what makes them."""

PROGRAM = """
import os, sys, time
from fmmt_deploy.training.workers import made_ahead
def make(key):
    time.sleep(0.05)
    return os.getpid()
try:
    made = made_ahead(make, range(10_000), 2)
    print(next(made), next(made), flush=True)
    for _ in made: pass
except KeyboardInterrupt:
    sys.exit(130)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_program_that_leaves_them_open() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stderr, done.returncode) == ("", 3)
    assert not any(map(alive, map(int, done.stdout.split())))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_a_training_that_is_interrupted_or_killed(sent: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert all(map(alive, pids))
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does it
    else:
        process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert (said, process.returncode) == ("", 130 if sent == signal.SIGINT else -signal.SIGKILL)
    end = time.monotonic() + 20  # PyTorch's workers look every 5 s whether their parent lives
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, pids))
