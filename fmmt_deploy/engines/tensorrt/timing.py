"""What TensorRT learned about the speed of its kernels on a GPU, kept beside the engines for later builds.

TensorRT-RTX times nothing at build time and has none.
"""

from __future__ import annotations

import logging
import re
from dataclasses import asdict
from pathlib import Path

from fmmt_deploy.bundle.sealed import BrokenSealError, read_sealed, write_sealed
from fmmt_deploy.engines.tensorrt.cache import EngineKey

__all__ = ["read_timings", "timings_path", "write_timings"]

_log = logging.getLogger(__name__)


def timings_path(folder: Path, key: EngineKey) -> Path:
    """Where the timings for a key's TensorRT and GPU are, or would be."""
    gpu = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join((key.target.gpu, *key.target.compute_capabilities)).strip("-"))
    return folder / f"timing-{key.flavour}-{key.version}-{gpu}.cache"


def read_timings(folder: Path, key: EngineKey) -> bytes | None:
    """The timings that earlier builds left; None where there are none, or none that are whole and for this."""
    path = timings_path(folder, key)
    try:
        about, content = read_sealed(path)
    except FileNotFoundError:
        return None
    except BrokenSealError as error:
        _log.warning("the timing cache %s is not used: %s", path, error)
        return None
    return bytes(content) if about == _about(key) else None


def write_timings(folder: Path, key: EngineKey, content: bytes) -> None:
    """Keeps timings for later builds.

    Raises:
        EnvironmentProblem: The disk is full, or the folder can't be written.
    """
    write_sealed(timings_path(folder, key), _about(key), memoryview(content))


def _about(key: EngineKey) -> dict[str, object]:
    target = asdict(key.target) | {"compute_capabilities": list(key.target.compute_capabilities)}
    return {"flavour": key.flavour, "version": key.version, "target": target}
