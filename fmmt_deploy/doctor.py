"""What this machine has, what it lacks for which command, and how to get it; light to import."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.nvidia import Gpu, nvidia_gpus

__all__ = ["CommandState", "Package", "Report", "TensorRt", "examine", "how_to_install"]

_DISTRIBUTION = "fmmt-deploy"

_MODULES = {
    "cuda-bindings": "cuda",
    "onnxruntime-gpu": "onnxruntime",
    "opencv-python-headless": "cv2",
    "scikit-learn": "sklearn",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
    "tensorrt-rtx-cu13-libs": "tensorrt_rtx_libs",
}
"""Import names that are not the distribution's name with underscores."""

_BASE = ("numpy", "onnx", "cv2", "tokenizers")
_TORCH = ("safetensors", "timm", "torch", "transformers")
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("onnxruntime",),
    "torch": _TORCH,
    "plots": ("matplotlib",),
    "train": ("accelerate", "tensorboardX"),
    "trt-rtx": ("tensorrt_rtx", "cuda"),
    "trt": ("tensorrt",),
}
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "inspect": _BASE,
    "run, eval, bench --engine ort": (*_BASE, "onnxruntime"),
    "run, eval, bench --engine torch": (*_BASE, *_TORCH),
    "export, parity": (*_BASE, "onnxruntime", *_TORCH),
    "cast, calibrate, triage, verdict, --engine emulated": (*_BASE, *_TORCH),
    "verdict --plot": (*_BASE, *_TORCH, "matplotlib"),
    "train": (*_BASE, *_TORCH, "accelerate", "matplotlib", "tensorboardX"),
    "report": (*_BASE, "jinja2"),
    "build --engine trt-rtx": (*_BASE, "tensorrt_rtx"),
    "run, eval, bench --engine trt-rtx": (*_BASE, "tensorrt_rtx", "cuda", "GPU"),
    "build --engine trt": (*_BASE, "tensorrt"),
    "run, eval, bench --engine trt": (*_BASE, "tensorrt", "cuda", "GPU"),
}
"""Modules that commands need, and `GPU` where one must be there."""

_RUN = "run, eval, bench --engine ort"
_BOTH_RUNTIMES_FIX = f'pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "{_DISTRIBUTION}[cpu]" or [gpu]'


@dataclass(frozen=True, slots=True)
class Package:
    """A package that ours names.

    Attributes:
        name: The distribution.
        extra: The extra that brings it, or "" if it is always needed.
        wanted: Versions, as `>=2.0`.
        installed: The version, or None if it is missing.
        fits: Whether that is one of those wanted.
    """

    name: str
    extra: str
    wanted: str
    installed: str | None
    fits: bool


@dataclass(frozen=True, slots=True)
class TensorRt:
    """One of the two TensorRTs: version of its Python bindings, and whether its libraries are found."""

    name: str
    bindings: str | None
    libraries: bool


@dataclass(frozen=True, slots=True)
class CommandState:
    """Whether commands can run, what they miss, and how to get it."""

    command: str
    ready: bool
    missing: tuple[str, ...]
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """All of it.

    `ready` is whether a bundle can be run with ONNX Runtime and nothing is broken; `int8` says how the CPU multiplies
    integers there, or is empty.
    """

    ready: bool
    version: str
    python: str
    system: str
    cores: int
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    packages: tuple[Package, ...]
    providers: tuple[str, ...]
    int8: str
    gpus: tuple[Gpu, ...]
    tensorrt: tuple[TensorRt, ...]
    commands: tuple[CommandState, ...]
    problems: tuple[str, ...]


def examine(folder: Path) -> Report:
    """Looks at this machine.

    Args:
        folder: Where bundles would be written, for the free space.
    """
    problems = []
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        problems.append(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's files. "
            f"To fix it: {_BOTH_RUNTIMES_FIX}."
        )
    providers, problem = _providers()
    gpus = nvidia_gpus()
    commands = tuple(_command_state(name, needs, bool(gpus)) for name, needs in _NEEDS.items())
    problems += [problem] if problem else []
    memory, available = _memory_bytes()
    return Report(
        ready=not problems and all(state.ready for state in commands if state.command == _RUN),
        version=importlib.metadata.version(_DISTRIBUTION),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory,
        memory_available_bytes=available,
        disk_free_bytes=shutil.disk_usage(folder).free,
        packages=_packages(),
        providers=providers,
        int8=_int8() if providers else "",
        gpus=gpus,
        tensorrt=_tensorrts(),
        commands=commands,
        problems=tuple(problems),
    )


def how_to_install(module: str) -> str:
    """The command that brings an import name, or "" if it is none of ours.

    Args:
        module: Top-level import name, such as `cv2`.
    """
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    if extra is None and module not in _BASE:
        return ""
    return f'pip install "{_DISTRIBUTION}[{extra}]"' if extra else f'pip install "{_DISTRIBUTION}"'


def _command_state(command: str, needs: tuple[str, ...], has_gpu: bool) -> CommandState:
    missing = tuple(n for n in needs if not (has_gpu if n == "GPU" else importlib.util.find_spec(n) is not None))
    packages = " && ".join(dict.fromkeys(how_to_install(need) for need in missing if need != "GPU"))
    fixes = (packages, "an NVIDIA GPU and its driver" if "GPU" in missing else "")
    return CommandState(command, not missing, missing, ", ".join(filter(None, fixes)))


def _packages() -> tuple[Package, ...]:
    found = []
    for requirement in importlib.metadata.requires(_DISTRIBUTION) or ():
        match = re.match(r"([\w.-]+)\s*([^;]*)", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)", requirement)
        if match is None or (extra and extra[1] == "dev"):
            continue
        name, wanted = match[1], match[2].strip()
        installed = _installed(name)
        module = _MODULES.get(name, name.replace("-", "_"))
        if installed is None and not name.startswith("onnxruntime") and importlib.util.find_spec(module) is not None:
            installed = "another build"  # such as opencv-python for opencv-python-headless
        fits = installed is not None and _fits(installed, wanted)
        found.append(Package(name, extra[1] if extra else "", wanted, installed, fits))
    return tuple(found)


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is wanted; only `>=` and `==`, which is all that our own metadata has."""
    for operator, bound in re.findall(r"(>=|==)\s*([\d.]+)", wanted):
        if not version[:1].isdigit():
            continue
        if (_release(version) < _release(bound)) if operator == ">=" else (_release(version) != _release(bound)):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.split(r"[^\d.]", version)[0].split(".") if number]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _providers() -> tuple[tuple[str, ...], str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return (), ""
    try:
        import onnxruntime

        return tuple(onnxruntime.get_available_providers()), ""
    except (ImportError, AttributeError, OSError) as error:  # files of two packages mixed, or a library missing
        return (), f"onnxruntime is installed but does not load ({error}). To fix it: {_BOTH_RUNTIMES_FIX}."


def _int8() -> str:
    import onnxruntime

    from fmmt_deploy.engines.ort.signedness import exact_signedness, explained

    try:
        return explained(exact_signedness(onnxruntime))
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        return f"not known: {' '.join(str(error).split())[:60]}"


def _tensorrts() -> tuple[TensorRt, ...]:
    from ctypes.util import find_library

    return (
        TensorRt(
            "TensorRT",
            next(filter(None, map(_installed, ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"))), None),
            importlib.util.find_spec("tensorrt_libs") is not None or find_library("nvinfer") is not None,
        ),
        TensorRt(
            "TensorRT-RTX",
            _installed("tensorrt-rtx-cu13-bindings"),
            importlib.util.find_spec("tensorrt_rtx_libs") is not None or find_library("tensorrt_rtx") is not None,
        ),
    )


def _memory_bytes() -> tuple[int, int]:
    """Total and available memory; 0 where the system does not say. A container's limit counts."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    values = {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return (min(total, limit), min(available, limit - (used or 0))) if limit else (total, available)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit
