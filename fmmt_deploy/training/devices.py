"""Where a training runs: one process or many, on CPUs or GPUs, in which precision. Accelerate does the work.

Several processes are started from outside: `torchrun --nproc-per-node 2 --no-python fmmt train …`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, ContextManager, Literal, TypeVar, cast  # noqa: UP035 - torch's stubs name it so

import torch
from torch import Tensor, nn

from fmmt_deploy.engines.torch.load import check_cuda
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.training.settings import Precision

__all__ = ["DeviceChoice", "Devices", "check_devices", "lost_peers", "open_devices"]

DeviceChoice = Literal["auto", "cpu", "cuda"]
T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""For the other processes: they wait while the main one validates and saves; where it dies, torchrun ends them."""


class Devices:
    """This process's device, and its connection with the others; `open_devices` makes it.

    Attributes:
        device: What the model is on.
        processes: How many there are.
        rank: Which one this is; 0 is the main one.
        scaler: Of gradients, where they are FP16's.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.processes: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler

    @property
    def main(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def prepared(self, module: nn.Module) -> nn.Module:
        """Moves a module to the device, in place; what is given back autocasts, and shares gradients between processes.

        Its float32 weights stay so. The main process's are copied to the others once.
        """
        with warnings.catch_warnings():
            # PyTorch 2.15 has another name for it, which Accelerate 1.15 does not know.
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            return cast(nn.Module, self._accelerator.prepare_model(module))

    def unshared(self, module: nn.Module, last: bool) -> ContextManager[None]:
        """For every pass of a step but the last: gradients stay in their process until that one."""
        return nullcontext() if last else self._accelerator.no_sync(module)

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.processes > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, found: bool) -> bool:
        """Whether it is so in some process."""
        return bool(self.summed(torch.tensor(float(found), device=self.device)).item())

    def gathered(self, value: T) -> list[T]:
        """What each process has."""
        found: list[Any] = [value]
        if self.processes > 1:
            found = [None] * self.processes
            torch.distributed.all_gather_object(found, value)
        return found

    def told(self, value: T) -> T:
        """What the main process has."""
        found = [value]
        if self.processes > 1:
            torch.distributed.broadcast_object_list(found, device=self.device)
        return found[0]


@contextmanager
def lost_peers() -> Iterator[None]:
    """Says what it is where another process ends while this one waits for it.

    Raises:
        EnvironmentProblem: That happened.
    """
    try:
        yield
    except RuntimeError as error:
        # Gloo has no kind of its own.
        if not isinstance(error, torch.distributed.DistError) and "gloo/transport" not in str(error):
            raise
        why = "Its own message says why, if it could give one."
        raise EnvironmentProblem("Another process of this training has ended.", why=why) from error


@contextmanager
def open_devices(choice: str, precision: Precision) -> Iterator[Devices]:
    """Joins the other processes, if there are any.

    Args:
        choice: A `DeviceChoice`; `auto` is a GPU if there is one.
        precision: What products are autocast to.

    Raises:
        UsageError: FP16 on a CPU.
        EnvironmentProblem: No GPU, or fewer than processes, or Accelerate is missing.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ImportError as error:
        fix = "pip install 'fmmt-deploy[train]'."
        raise EnvironmentProblem("Training needs Accelerate.", why=str(error), fix=fix) from error
    on_cpu = check_devices(choice, precision) == "cpu"
    # Accelerate keeps its state for the life of the process; another training in it may be of another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[
            # Each phase moves a part of the model only; BatchNorm has the same statistics everywhere by itself.
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    yield Devices(accelerator)
    accelerator.end_training()  # not after an error: the others may be waiting, and torchrun ends them


def check_devices(choice: str, precision: Precision) -> Literal["cpu", "cuda"]:
    """Says before any work is done whether a training can run there, and what `auto` is.

    Args:
        choice: See `open_devices`.
        precision: Likewise.

    Raises:
        UsageError: FP16 on a CPU.
        EnvironmentProblem: No GPU, or fewer than processes.
    """
    on_cpu = choice == "cpu" or (choice == "auto" and not torch.cuda.is_available())
    _check(on_cpu, precision)
    return "cpu" if on_cpu else "cuda"


def _check(on_cpu: bool, precision: Precision) -> None:
    if on_cpu:
        if precision == "fp16":
            raise UsageError(
                "A CPU can't train in fp16.",
                why="It needs gradients to be scaled, which Accelerate does on GPUs only.",
                fix="Give --set run.precision=fp32 (or bf16), or train on a GPU.",
            )
        return
    check_cuda("Training with --device cuda", instead="--device cpu")
    needed, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if needed > found:
        raise EnvironmentProblem(
            f"{needed} processes need as many GPUs, found {found}.",
            fix=f"Start torchrun with --nproc-per-node {found}, or train with --device cpu.",
        )
