"""The kernels that TensorRT-RTX compiles when an engine runs, kept beside the engine for the next time.

TensorRT compiles them when it builds, and has no such cache.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from fmmt_deploy.bundle.sealed import BrokenSealError, read_sealed, write_sealed
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["RuntimeCache", "runtime_cache_path"]

_log = logging.getLogger(__name__)


def runtime_cache_path(engine_file: Path) -> Path:
    """Where the kernels of an engine are kept."""
    return engine_file.with_name(f"{engine_file.name}.kernels")


class RuntimeCache:
    """The compiled kernels of one engine.

    Args:
        engine: The `ICudaEngine`.
        path: Where they are kept; None keeps them for this process only.

    Attributes:
        cache: The `IRuntimeCache`, for contexts; None where this TensorRT has no such thing.
    """

    def __init__(self, engine: Any, path: Path | None) -> None:
        self._path, self._saved = path, ""
        config: Any = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
        self.cache: Any = config.create_runtime_cache() if hasattr(config, "create_runtime_cache") else None
        if self.cache is not None and path is not None and path.exists():
            self._load(path)

    def save(self) -> None:
        """Writes them, if there are others than were read; that it can't be done is only logged."""
        if self.cache is None or self._path is None:
            return
        content = self.cache.serialize()
        if content is None:
            return
        kernels = memoryview(content)
        if (digest := hashlib.sha256(kernels).hexdigest()) == self._saved:
            return
        try:
            write_sealed(self._path, {}, kernels)
        except EnvironmentProblem as error:  # a bundle may be read-only; the next start is only slower
            _log.warning("The compiled kernels were not kept, so the next start will be as slow: %s", error.what)
        self._saved = digest

    def _load(self, path: Path) -> None:
        try:
            _, kernels = read_sealed(path)
        except (BrokenSealError, OSError) as error:
            _log.warning("The compiled kernels in %s are not used: %s", path, error)
            return
        if self.cache.deserialize(kernels):
            self._saved = hashlib.sha256(kernels).hexdigest()
        else:  # of another driver or GPU: they are compiled again, and replaced
            _log.info("The compiled kernels in %s are of another driver or GPU; they are compiled again.", path)
