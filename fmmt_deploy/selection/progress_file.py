"""What a search has judged so far, in a file that outlives it: one JSON object a line, appended as soon as it is known.

A line counts for one set of inputs only (`inputs_digest`): lines of others, and a last line that was cut off by a kill,
are passed over, and the reader is told how many. So a file can't be wrong, only useless.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from fmmt_deploy.bundle.manifest import MANIFEST_NAME, Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import UsageError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.selection.judgement import Judgement
from fmmt_deploy.types import GraphName

__all__ = ["Candidate", "Candidates", "ProgressFile", "Verdict", "inputs_digest"]

SCHEMA = "fmmt.search/1"
_BEGINNING = '{"schema": "fmmt.search/'


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph as it could be.

    Attributes:
        precision: What its products are computed in.
        keep: Patterns of what is kept back.
    """

    precision: Precision
    keep: tuple[str, ...] = ()


Candidates: TypeAlias = Mapping[GraphName, Candidate]
"""What is judged together; graphs that are not named answer as the reference does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about candidates.

    Attributes:
        judgement: Of their engines; None if a graph can't be made.
        failure: Why it can't; empty if it can.
    """

    judgement: Judgement | None
    failure: str = ""


class ProgressFile:
    """Verdicts, by what was judged.

    Args:
        path: The file; it is made when there is a first verdict.
        inputs: See `inputs_digest`.

    Attributes:
        passed_over: How many lines of the file are of other inputs, or cut off.

    Raises:
        UsageError: The file is something else, or can't be read.
    """

    def __init__(self, path: Path, inputs: str) -> None:
        self._path, self._inputs = path, inputs
        self._verdicts: dict[str, Verdict] = {}
        self.passed_over = 0
        self._whole = True
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise _not_ours(path, str(error)) from error
        self._whole = not text or text.endswith("\n")
        for number, line in enumerate(text.splitlines()):
            self._read(line, first=number == 0)

    def __len__(self) -> int:
        """How many verdicts there are."""
        return len(self._verdicts)

    def find(self, candidates: Candidates) -> Verdict | None:
        """What was found about them, if anything was."""
        return self._verdicts.get(_key(candidates))

    def add(self, candidates: Candidates, verdict: Verdict) -> None:
        """Keeps a verdict; it is on the disk when this returns.

        Raises:
            OSError: It can't be written.
        """
        judgement = None if verdict.judgement is None else _values(verdict.judgement)
        values = {
            "schema": SCHEMA,
            "inputs": self._inputs,
            "candidates": {graph: asdict(candidate) for graph, candidate in candidates.items()},
            "failure": verdict.failure,
            "judgement": judgement,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if self._whole else "\n") + json.dumps(values, allow_nan=False) + "\n")
        self._whole = True
        self._verdicts[_key(candidates)] = verdict

    def _read(self, line: str, first: bool) -> None:
        try:
            values = json_object_from_text(line)
            if values.get("schema") != SCHEMA:
                raise JsonValueError("schema", SCHEMA, repr(values.get("schema"))[:40])
            judgement = _judgement(values.pop("judgement", None))
            found = dataclass_from_json(_Line, values)
            if (judgement is None) != bool(found.failure):
                raise JsonValueError("judgement", "there, or a failure", "both or neither")
        except JsonValueError as error:
            if first and not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                raise _not_ours(self._path, str(error)) from error
            self.passed_over += 1
            return
        if found.inputs == self._inputs:
            self._verdicts[_key(found.candidates)] = Verdict(judgement, found.failure)
        else:
            self.passed_over += 1


@dataclass(frozen=True, slots=True)
class _Line:
    """Of the file, without the judgement, whose numbers need not be finite."""

    schema: str
    inputs: str
    candidates: Mapping[GraphName, Candidate]
    failure: str


def inputs_digest(bundle: Bundle, data_digest: str, settings: Mapping[str, object]) -> str:
    """What verdicts are good for: SHA-256, hexadecimal.

    Args:
        bundle: The model; its manifest has the hash of every file.
        data_digest: The content of what it is judged on.
        settings: Whatever else candidates are made with, as JSON's plain values: calibration, for example.
    """
    manifest = hashlib.sha256((bundle.path / MANIFEST_NAME).read_bytes()).hexdigest()
    values = {"manifest": manifest, "data": data_digest, "settings": settings}
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _key(candidates: Candidates) -> str:
    return json.dumps({graph: asdict(candidate) for graph, candidate in candidates.items()}, sort_keys=True)


def _values(judgement: Judgement) -> dict[str, object]:
    """Plain values; SQNRs as text, because JSON knows no infinity."""
    outputs = {graph: repr(db) for graph, db in judgement.outputs_sqnr_db.items()}
    return asdict(judgement) | {"sqnr_db": repr(judgement.sqnr_db), "outputs_sqnr_db": outputs}


def _judgement(values: object) -> Judgement | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise JsonValueError("judgement", "an object", "something else")
    sqnr, outputs = values.get("sqnr_db"), values.get("outputs_sqnr_db")
    if not isinstance(sqnr, str) or not isinstance(outputs, dict):
        raise JsonValueError("judgement.sqnr_db", "numbers as text", "something else")
    rest = dataclass_from_json(Judgement, values | {"sqnr_db": 0.0, "outputs_sqnr_db": dict.fromkeys(outputs, 0.0)})
    numbers = {graph: _decibels(outputs[graph]) for graph in rest.outputs_sqnr_db}
    return replace(rest, sqnr_db=_decibels(sqnr), outputs_sqnr_db=numbers)


def _decibels(text: object) -> float:
    try:
        return float(text) if isinstance(text, str) else math.nan
    except ValueError as error:
        raise JsonValueError("judgement.sqnr_db", "a number", repr(text)[:40]) from error


def _not_ours(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is not a search's progress.",
        why=why,
        fix="Name another file: this one is left as it is.",
        path=path,
    )
