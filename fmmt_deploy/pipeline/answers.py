"""Predictions as JSON lines, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fmmt_deploy.bundle.replacing import is_bundle
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.pipeline.run import Prediction

__all__ = ["check_new_file", "line_from_prediction", "write_answers", "write_text"]


def check_new_file(path: Path, force: bool) -> None:
    """Says before any work is done whether a file may be written.

    Raises:
        UsageError: It exists and `force` is not given, or it can't be a file, or is something else; or it is inside a
            bundle, whose files are those that its manifest lists.
    """
    if str(path) == "-":
        raise UsageError("A file named - is not written: nothing here goes to stdout.", fix="Give a path.", path=path)
    if (bundle := next(filter(is_bundle, path.resolve().parents), None)) is not None:
        raise UsageError(f"{path} is inside the bundle {bundle}.", fix="Give a path beside it.", path=path)
    if path.exists() and not path.is_file():  # a pipe or a device would be gone, and a file in its place
        raise UsageError(f"{path} exists, and is no file.", fix="Give a file.", path=path)
    if path.exists() and not force:
        raise UsageError(f"{path} exists.", fix="Add --force to replace it.", path=path)
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", fix="Make it, or give another path.", path=path)


def line_from_prediction(prediction: Prediction) -> str:
    """One line of JSON, without its end; floats are written so that reading them gives the same float32."""
    return json.dumps(
        {
            "utterance": prediction.utterance,
            "label": prediction.label,
            "probabilities": [float(str(x)) for x in prediction.probabilities],
            "logits": [float(str(x)) for x in prediction.logits],
            "kept_faces": list(prediction.kept_faces),
        }
    )


def write_answers(path: Path, predictions: Sequence[Prediction], force: bool) -> None:
    """Writes predictions to a temporary file beside `path`, then puts it there in one step.

    Raises:
        UsageError: `path` came to exist in the meantime.
        EnvironmentProblem: It can't be written; nothing is left behind.
    """
    write_text(path, "".join(f"{line_from_prediction(prediction)}\n" for prediction in predictions), force)


def write_text(path: Path, text: str, force: bool) -> None:
    """Writes text to a temporary file beside `path`, or where that leads, then puts it there; see `write_answers`."""
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:  # the name of a bundle or a file that is said in a page need not be UTF-8
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        check_new_file(path, force)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} can't be written.", why=str(error), fix="Free some space, or give another path.", path=path
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
