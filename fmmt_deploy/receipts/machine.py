"""What a receipt says of the machine: versions and hardware, but neither who uses it nor what it is called."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["TOOLS", "device_facts", "tool_versions"]

TOOLS = (
    "fmmt-deploy",
    "cuda-bindings",
    "jinja2",
    "matplotlib",
    "ml-dtypes",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "opencv-python-headless",
    "safetensors",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu13-bindings",
    "timm",
    "tokenizers",
    "torch",
    "transformers",
)
"""Whose versions may decide what is answered."""


def tool_versions() -> dict[str, str]:
    """Versions of what is installed, and of Python; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name == "fmmt-deploy":
                found[name] = "a checkout, not installed"
    return found


def device_facts(gpus: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Processor, cores, memory and system, with the GPUs given."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory_bytes(),
        "gpus": [dict(gpu) for gpu in gpus],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory_bytes() -> int:
    names = getattr(os, "sysconf_names", {})
    known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0
