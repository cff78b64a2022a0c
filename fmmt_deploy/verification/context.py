"""What steps share within a process: the model's bundle, and engines, which are opened once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.benchmark.choices import Choice, choice_from_option
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import default_threads, open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt.gpu import Gpu, current_gpu
from fmmt_deploy.errors import EnvironmentProblem, FmmtError
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.verification.settings import Settings

__all__ = ["Context", "check_gpu"]


@dataclass
class Context:
    """What a step works with.

    Attributes:
        settings: What is asked for.
        ready: Engines that have been shown to answer right, by name.
        deadline: When the step should be done, on the clock `monotonic`.
        asks: Told of the engine that is asked next, which is to blame if this process then hangs or dies.
    """

    settings: Settings
    ready: tuple[str, ...] = ()
    deadline: float = float("inf")
    asks: Callable[[str], object] = lambda _: None
    _opened: dict[str, Engines] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def bundle_path(self) -> Path:
        """Where the model's bundle is, or will be."""
        return self.settings.folder / "bundle"

    @property
    def architecture(self) -> Architecture:
        """The model's."""
        return PRESETS[self.settings.model]

    @property
    def threads(self) -> int:
        """To compute and to decode faces with, on the host."""
        return default_threads()

    @property
    def seconds_left(self) -> float:
        """Until the step should be done."""
        return self.deadline - monotonic()

    def bundle(self) -> Bundle:
        """The model's bundle; its hashes were checked when it was written."""
        return Bundle.open(self.bundle_path, verify=False)

    def choice(self, name: str) -> Choice:
        """An engine and its precisions."""
        return choice_from_option(name, self.architecture)

    def engines(self, name: str) -> Engines:
        """An engine, opened when it is first asked for.

        Raises:
            FmmtError: It can't be opened here; see `open_engines`.
        """
        if name not in self._opened:
            self.asks(name)
            choice = self.choice(name)
            opened = open_engines(self.bundle(), choice.kind, choice.precisions, self.threads)
            self._opened[name] = self._stack.enter_context(opened)
        return self._opened[name]

    def opened(self, names: tuple[str, ...]) -> tuple[dict[str, Engines], dict[str, str]]:
        """Those that open, and of the others why they don't."""
        engines, refused = dict[str, Engines](), dict[str, str]()
        for name in names:
            try:
                engines[name] = self.engines(name)
            except FmmtError as error:
                refused[name] = error.what
        return engines, refused

    def close(self) -> None:
        """Closes all engines."""
        self._stack.close()
        self._opened.clear()


def check_gpu() -> Gpu:
    """This machine's GPU.

    Raises:
        EnvironmentProblem: There is none.
    """
    gpu = current_gpu()
    if gpu is None:
        raise EnvironmentProblem(
            "There is no NVIDIA GPU here, or no driver, or cuda-bindings is missing.",
            fix="Run this on a machine with a GPU; `fmmt doctor` says what it lacks.",
        )
    return gpu
