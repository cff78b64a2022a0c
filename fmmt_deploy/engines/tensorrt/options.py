"""How engines are built."""

from __future__ import annotations

from dataclasses import dataclass

from fmmt_deploy.errors import UsageError

__all__ = ["BuildOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Builder options. What is not here is always the same: strongly typed, TF32 off, detailed layer information.

    Attributes:
        optimization_level: 0 to 5; 3 to develop, 5 to release.
        workspace_bytes: Memory that a layer may use while it runs; 0 leaves it to TensorRT, which takes what there is.

    Raises:
        UsageError: One is out of range.
    """

    optimization_level: int = 3
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= 5:
            raise UsageError(
                f"The optimisation level is 0 to 5, found {self.optimization_level}.",
                fix="Use 3 to develop and 5 to release.",
            )
        if self.workspace_bytes < 0:
            raise UsageError(f"The workspace has at least 0 bytes, found {self.workspace_bytes}.")

    def __str__(self) -> str:
        workspace = f", workspace {self.workspace_bytes} bytes" if self.workspace_bytes else ""
        return f"optimisation level {self.optimization_level}{workspace}"
