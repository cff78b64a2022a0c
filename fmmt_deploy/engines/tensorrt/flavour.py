"""The two TensorRTs behind one interface: importing either, what it logs, and the few calls in which they differ.

`tensorrt` is for data-centre and workstation GPUs, `tensorrt_rtx` for RTX GPUs. Where we need them their Python APIs
are the same; what is not is here.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

from fmmt_deploy.errors import EnvironmentProblem

__all__ = [
    "FLAVOURS",
    "LAYERS",
    "FlavourName",
    "Message",
    "collected",
    "create_network",
    "error_recorder",
    "import_flavour",
    "logger",
    "title",
]

FlavourName = Literal["trt", "trt-rtx"]
FLAVOURS: tuple[FlavourName, ...] = ("trt", "trt-rtx")

LAYERS = "Layers:"
"""How the list of an engine's layers begins."""

_log = logging.getLogger(__name__)

_KNOWN = re.compile(r"Make sure input \S+ has Int64 binding")
"""Warnings of what is so: the types of inputs are checked, see `network`."""


@dataclass(frozen=True, slots=True)
class _Package:
    """A TensorRT: its name for people, its module, the oldest version that will do, and how to get it."""

    title: str
    module: str
    oldest: tuple[int, int]
    install: str


_PACKAGES: Mapping[FlavourName, _Package] = {
    "trt": _Package(
        "TensorRT",
        "tensorrt",
        (10, 12),
        "pip install tensorrt, whose libraries come from NVIDIA's own package index.",
    ),
    "trt-rtx": _Package("TensorRT-RTX", "tensorrt_rtx", (1, 0), "pip install 'fmmt-deploy[trt-rtx]'."),
}
"""10.12 is the oldest TensorRT that our graphs are meant to build on; TensorRT-RTX has had the API from the start."""


@dataclass(frozen=True, slots=True)
class Message:
    """What TensorRT logged: an error, a warning, or the list of an engine's layers (see `layers`), and its words."""

    kind: Literal["error", "warning", "layers"]
    text: str

    @property
    def is_error(self) -> bool:
        """Whether it is an error."""
        return self.kind == "error"


def title(name: FlavourName) -> str:
    """What people call it: `TensorRT` or `TensorRT-RTX`."""
    return _PACKAGES[name].title


def import_flavour(name: FlavourName) -> ModuleType:
    """Imports one of the two.

    Raises:
        EnvironmentProblem: It is not installed, its libraries are missing, or it is too old.
    """
    package = _PACKAGES[name]
    try:
        module = importlib.import_module(package.module)
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(f"{package.title} is not installed.", why=str(error), fix=package.install) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise _without_libraries(package, str(error)) from error
    if not hasattr(module, "Builder"):  # a folder that an uninstalled package left behind imports as an empty module
        raise _without_libraries(package, f"The module {package.module} is empty.")
    version = str(getattr(module, "__version__", "0"))
    if _numbers(version) < package.oldest:
        oldest = ".".join(map(str, package.oldest))
        raise EnvironmentProblem(
            f"{package.title} {oldest} or later is needed, found {version}.", fix=f"pip install -U {package.module}."
        )
    return module


@cache
def logger(trt: Any) -> Any:
    """The logger for all that is made with TensorRT in this process, which keeps only the first it is given.

    Warnings go to `logging`; see `collected` for errors.

    Args:
        trt: The module that `import_flavour` gave.
    """

    class Collecting(trt.ILogger):  # type: ignore[misc]  # the base class is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[list[Message]] = []

        def log(self, severity: Any, text: str) -> None:
            is_error = severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
            is_warning = severity == trt.ILogger.WARNING and not _KNOWN.search(text)
            if is_error or is_warning or text.startswith(LAYERS):
                message = Message("error" if is_error else "warning" if is_warning else "layers", text)
                for listener in self.listeners:
                    listener.append(message)
            # errors come back as exceptions of ours; logged as such they would be shown twice
            _log.log(logging.WARNING if is_warning else logging.DEBUG, "%s", text)

    return Collecting()


@contextmanager
def collected(trt: Any) -> Iterator[list[Message]]:
    """Errors, warnings and lists of layers that TensorRT logs meanwhile, in order.

    Args:
        trt: The module that `import_flavour` gave.
    """
    listeners, messages = logger(trt).listeners, list[Message]()
    listeners.append(messages)
    try:
        yield messages
    finally:
        listeners[:] = [listener for listener in listeners if listener is not messages]


def error_recorder(trt: Any) -> Any:
    """Makes a recorder of TensorRT's errors; `descriptions` has them in order.

    Args:
        trt: The module that `import_flavour` gave.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]  # the base class is known at run time only
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.recorded: list[tuple[Any, str]] = []

        @property
        def descriptions(self) -> list[str]:
            return [text for _, text in self.recorded]

        def clear(self) -> None:
            self.recorded.clear()

        def get_error_code(self, index: int) -> Any:
            return self.recorded[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.recorded[index][1]

        def has_overflowed(self) -> bool:
            return False

        def num_errors(self) -> int:
            return len(self.recorded)

        def report_error(self, code: Any, text: str) -> bool:
            self.recorded.append((code, text))
            return False

    return Recorder()


def create_network(trt: Any, builder: Any) -> Any:
    """An empty, strongly typed network: TensorRT 10 and TensorRT-RTX need a flag for that, 11 has no other kind."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def _without_libraries(package: _Package, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"The Python bindings of {package.title} are installed, but not its libraries.", why=why, fix=package.install
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
