"""Opening an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmmt_deploy.errors import BundleError

__all__ = ["open_session"]

_FOLDER = "session.model_external_initializers_file_folder_path"
"""The session option for where the weights of a graph are that is not in a file."""


def open_session(
    ort: Any, path: Path, options: Any, providers: Sequence[Any] | None, content: bytes | None = None
) -> Any:
    """Opens a graph on the providers given and, after an error, on no other.

    Args:
        ort: The module `onnxruntime`.
        path: An ONNX file, with its weights beside it.
        options: Its `SessionOptions`.
        providers: Names, or names with options, the preferred first; None where they are in `options`.
        content: What to open instead of what is in that file; its weights are those beside the file.

    Raises:
        BundleError: ONNX Runtime refuses the graph.
    """
    if content is not None:
        options.add_session_config_entry(_FOLDER, str(path.parent))
    try:
        # without its own fallback, which would try again on the CPU, and say so on stdout
        return ort.InferenceSession(content or str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise BundleError(
            f"ONNX Runtime refuses the graph {path}.", why=str(error), fix="Export the bundle again.", path=path
        ) from error
