"""Makes a trainer's batches ahead of it, in processes of their own, in the order that was asked for."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar, runtime_checkable

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fmmt_deploy.errors import EnvironmentProblem, FmmtError
from fmmt_deploy.interrupts import SIGNALS

__all__ = ["NO_WORKERS", "can_fork", "made_ahead"]

Key = TypeVar("Key")
Made = TypeVar("Made")

_AHEAD = 2
"""Batches that each worker makes ahead; one of 32 utterances can have 600 MB of faces."""

_GONE = ("killed by signal", "exited unexpectedly")
"""What PyTorch says of a worker that is no more."""

_FULL = "unable to allocate shared memory"
"""What PyTorch says where there is no room for a batch."""

NO_WORKERS = "On this system data are read in the training process itself: it can't share them with workers (no fork)."


def can_fork() -> bool:
    """Whether workers can share the data set's memory; elsewhere each would need a copy of its gigabytes."""
    return sys.platform == "linux"


def made_ahead(make: Callable[[Key], Made], keys: Sequence[Key], workers: int) -> Iterator[Made]:
    """Yields `make(key)` for every key, in their order.

    Args:
        make: Called in the workers, which have the process's memory as it is now.
        keys: What to make.
        workers: How many processes; 0, or where there is no fork, makes them here.

    Raises:
        FmmtError: What `make` raised, as it was.
        EnvironmentProblem: A worker was killed, or shared memory is full.
    """
    if not keys:
        return
    with warnings.catch_warnings():
        # that forking beside other threads may deadlock: our workers take none of their locks, and use one thread each;
        # and that there are more workers than cores, which the user has asked for
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        warnings.filterwarnings("ignore", category=UserWarning, message="This DataLoader will create")
        with _no_interrupts():
            others = multiprocessing.active_children()
            batches = iter(_loader(make, keys, workers if can_fork() else 0))
            own = [child for child in multiprocessing.active_children() if child not in others]
    # Python ends what is left by SIGTERM, which they don't take, and would then wait for them forever.
    ended = atexit.register(partial(_end, own))
    try:
        for made in batches:
            if isinstance(made, FmmtError):
                raise made
            yield made
    except RuntimeError as problem:
        if not any(words in str(problem) for words in _GONE):
            raise
        raise EnvironmentProblem(
            "A process that reads the data was killed.",
            why=str(problem).splitlines()[0][:300],
            fix="Free memory, or set run.workers to 0.",
        ) from problem
    finally:
        del batches  # which ends the workers
        ended()
        atexit.unregister(ended)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ends those that are left; PyTorch, which is told of every child's end, would take it for a failure."""
    left = [process for process in processes if process.is_alive()]
    if not left:
        return
    main = threading.current_thread() is threading.main_thread()
    told = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
    for process in left:
        process.kill()
        process.join()
    if told is not None:
        signal.signal(signal.SIGCHLD, told)


class _Made(Dataset[Made | FmmtError], Generic[Key, Made]):
    def __init__(self, make: Callable[[Key], Made], keys: Sequence[Key]) -> None:
        self._make, self._keys = make, keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Made | FmmtError:
        try:
            made = self._make(self._keys[index])
            if get_worker_info() is not None and isinstance(made, _Shared):
                _share(made)
            return made
        except FmmtError as problem:
            return problem  # as PyTorch would raise it, its message would be a worker's traceback


@runtime_checkable
class _Shared(Protocol):
    """A batch of tensors."""

    def share_memory(self) -> None: ...


def _share(batch: _Shared) -> None:
    """Where it is left to PyTorch (2.15), a batch for which there is no room is lost, and the training waits for it."""
    try:
        batch.share_memory()
    except RuntimeError as problem:
        if _FULL not in str(problem):
            raise
        raise EnvironmentProblem(
            "Shared memory is full: batches come through it from the processes that read the data.",
            why=str(problem).splitlines()[0][:300],
            fix="Enlarge /dev/shm (Docker: --shm-size), or set run.workers to 0, or target.batch_size lower.",
        ) from problem


def _loader(make: Callable[[Key], Made], keys: Sequence[Key], workers: int) -> DataLoader[Made | FmmtError]:
    return DataLoader(
        _Made(make, keys),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start if workers else None,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=_AHEAD if workers else None,
        generator=torch.Generator(),  # or it would draw from the one that dropout draws from
    )


def _as_it_is(made: Made) -> Made:
    return made


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Interrupts wait; processes that are forked never get any: they are for the training, which ends its workers."""
    if not can_fork():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(_worker: int) -> None:
    cv2.setNumThreads(0)  # they have not survived the fork
