"""The log of a training: JSON lines, from which its curves are drawn and which a resumed run goes on with.

The first line holds the settings and the format's name, `fmmt.training-log/1`; each other line is an `event`: a `step`
(`StepRecord`), an `epoch` (`EpochRecord`, its scores under `validation`), a `note`, or that the run was `resumed`.
`time` is in UTC. A number that is not finite (a gradient's norm that overflowed) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from fmmt_deploy.errors import DataError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.watching import EpochRecord, Phase, StepRecord

__all__ = ["SCHEMA", "EpochLine", "JsonlLog", "Kept", "TrainingLog", "read_log"]

SCHEMA = "fmmt.training-log/1"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a resumed run goes on from; what its log says of later things is cut off.

    Attributes:
        steps: Of each phase, since the training began.
        epochs: That are over, validation included.
    """

    steps: Mapping[Phase, int]
    epochs: int


@dataclass(frozen=True, slots=True)
class EpochLine:
    """What the log has of an epoch.

    Attributes:
        epoch: From 1.
        faces_loss: None where the epoch had no such phase.
        target_loss: Mean over its steps.
        weighted_f1: In validation, 0 to 1.
        confusion: In validation; row the true emotion, column the decision.
        best: Whether it was the best until then.
        seconds: It took.
    """

    epoch: int
    faces_loss: float | None
    target_loss: float
    weighted_f1: float
    confusion: tuple[tuple[int, ...], ...]
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """A log that was read; what was null is NaN."""

    steps: tuple[StepRecord, ...]
    epochs: tuple[EpochLine, ...]
    notes: tuple[str, ...]


class JsonlLog:
    """Writes a log, each line at once and whole; a line that can't be written is missing, and nothing else.

    Args:
        path: The file. Without `kept` it is begun anew.
        settings: For its first line.
        kept: How far the run has come that is resumed.

    Raises:
        OSError: The file can't be opened, or written.
    """

    def __init__(self, path: Path, settings: Settings, kept: Kept | None = None) -> None:
        self._end = 0
        if kept is not None and path.is_file():
            self._end = _end_of_kept(path, kept)
        self._file: BinaryIO = path.open("r+b" if self._end else "wb", buffering=0)
        self._file.truncate(self._end)
        self._file.seek(self._end)
        if not self._end:
            self._write("start", {"schema": SCHEMA, "settings": asdict(settings)})
        if kept is not None:
            self._write("resumed", {"epochs": kept.epochs, "steps": dict(kept.steps)})

    def note(self, text: str) -> None:
        """Writes a note."""
        self._write("note", {"text": text})

    def step(self, record: StepRecord) -> None:
        """Writes a step."""
        self._write("step", asdict(record))

    def epoch(self, record: EpochRecord) -> None:
        """Writes an epoch."""
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        self._write("epoch", values | {"validation": record.validation.to_json()})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: str, values: Mapping[str, object]) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(_finite({"event": event, **values, "time": time}), ensure_ascii=False, allow_nan=False)
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._file.write(data) != len(data):  # a disk that becomes full takes a part
                raise OSError(28, "No space left on device")
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(data)


def read_log(path: Path) -> TrainingLog:
    """Reads a log; a last line that was cut short is left out.

    Raises:
        DataError: It can't be read, or a line in it is not one of a log's.
    """
    steps: list[StepRecord] = []
    epochs: list[EpochLine] = []
    notes: list[str] = []
    try:
        for line, _ in _lines(path):
            match line.get("event"):
                case "step":
                    steps.append(_step(line))
                case "epoch":
                    epochs.append(_epoch(line))
                case "note":
                    notes.append(str(line["text"]))
    except OSError as error:
        raise DataError(f"{path} can't be read.", why=str(error), path=path) from error
    except (KeyError, TypeError, JsonValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a training's log: {error}.", fix="Give the log.jsonl of a run.") from error
    return TrainingLog(tuple(steps), tuple(epochs), tuple(notes))


def _lines(path: Path) -> Iterator[tuple[Mapping[str, object], int]]:
    """Each whole line, parsed, and where it ends."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield json_object_from_text(line.decode()), file.tell()


def _end_of_kept(path: Path, kept: Kept) -> int:
    """Bytes of all lines before the first that is later than what is kept, or that is damaged."""
    end = 0
    try:
        for line, after in _lines(path):
            if _is_later(line, kept):
                break
            end = after
    except (JsonValueError, UnicodeDecodeError):
        return end
    return end


def _is_later(line: Mapping[str, object], kept: Kept) -> bool:
    match line:
        case {"event": "step", "phase": "faces" | "target" as phase, "total": int(total)}:
            return total > kept.steps.get(phase, 0)
        case {"event": "epoch", "epoch": int(epoch)}:
            return epoch > kept.epochs
    return False


def _step(line: Mapping[str, object]) -> StepRecord:
    values = {field.name: line[field.name] for field in fields(StepRecord)}
    numbers = {n: _number(values[n]) for n in ("loss", "learning_rate", "gradient_norm", "seconds")}
    return StepRecord(**values | numbers)  # type: ignore[arg-type]  # our own lines


def _epoch(line: Mapping[str, object]) -> EpochLine:
    scores = cast(Mapping[str, object], line["validation"])
    faces_loss = line["faces_loss"]
    return EpochLine(
        epoch=cast(int, line["epoch"]),
        faces_loss=None if faces_loss is None else _number(faces_loss),
        target_loss=_number(line["target_loss"]),
        weighted_f1=_number(scores["weighted_f1"]),
        confusion=tuple(tuple(row) for row in cast("list[list[int]]", scores["confusion"])),
        best=bool(line["best"]),
        seconds=_number(line["seconds"]),
    )


def _number(value: object) -> float:
    return math.nan if value is None else float(cast(float, value))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
