"""One receipt: what a command did with which settings, what went in, what was judged, what came out.

The file is JSON, and its second line is the seal: the SHA-256 of all that follows it. Each receipt names the SHA-256 of
the file before it. So a changed byte, blanks included, is found in any of them, and so is a receipt that is gone from
the middle; nothing tells of one that is gone from the end.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text

__all__ = ["SCHEMA", "DamagedReceiptError", "Hashed", "Receipt", "Setting", "bytes_from_receipt", "receipt_from_bytes"]

SCHEMA = 1

_HEAD, _BEHIND_SEAL = b'{\n "seal": "', b'",\n'
_SEAL_BYTES = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


class DamagedReceiptError(ValueError):
    """A file is no receipt, or not as it was written; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a command, and where it is from.

    Attributes:
        value: It, as JSON has it.
        source: `command line`, `default`, `environment`, or `recipe` and the recipe's name.
    """

    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """Something outside the bundle that went in.

    Attributes:
        sha256: Of a file's bytes, or of all that a model reads of a data set; see `data.fingerprint`.
        about: What it is, for people.
    """

    sha256: str
    about: str = ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One command.

    Attributes:
        schema: Version of this format.
        number: Its place in the bundle's chain, from 1.
        previous: SHA-256 of the receipt file before it; None of the first.
        command: For example `export`.
        created: When it ended, ISO 8601, UTC; default now.
        seconds: How long it took.
        exit_code: What the command ended with.
        verdict: `passed`, `failed`, `EQUIVALENT` and so on; "" where nothing was judged.
        settings: By the option's name.
        inputs: What went in from outside the bundle: checkpoints, data.
        subjects: What in the bundle was read or judged, by path: SHA-256 of the file, of an engine that of its plan.
        outputs: What was made, likewise; `manifest.json` too where that was changed.
        tools: Versions of what is installed.
        device: The machine's processor, cores, memory, system, GPUs.
        seeds: What randomness was drawn from.
        result: All that the command says with `--json`.
    """

    schema: int = SCHEMA
    number: int = 0
    previous: str | None = None
    command: str
    created: str = field(default_factory=_now)
    seconds: float
    exit_code: int = 0
    verdict: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    inputs: Mapping[str, Hashed] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, object] = field(default_factory=dict)
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    result: Mapping[str, object] = field(default_factory=dict)


def bytes_from_receipt(receipt: Receipt) -> bytes:
    """A receipt's file.

    Raises:
        ValueError: It holds NaN, infinity, or something that JSON has no word for.
    """
    text = json.dumps(asdict(receipt), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)  # of a file name that is not UTF-8
    body = text.removeprefix("{\n").encode()
    return _sealed(body) + body


def receipt_from_bytes(content: bytes) -> Receipt:
    """Reads what `bytes_from_receipt` gave.

    Raises:
        DamagedReceiptError: The seal is not that of the rest, or the rest is of another version.
    """
    start = len(_HEAD) + _SEAL_BYTES + len(_BEHIND_SEAL)
    body = content[start:]
    if content[:start] != _sealed(body):
        raise DamagedReceiptError("was altered: its seal is not that of its content")
    try:
        values = json_object_from_text("{" + body.decode())
        if (schema := values.get("schema")) != SCHEMA:
            raise JsonValueError("schema", str(SCHEMA), ascii(schema)[:20])
        receipt = dataclass_from_json(Receipt, values)
        _check_time(receipt.created)
        return receipt
    except (JsonValueError, UnicodeDecodeError) as error:
        raise DamagedReceiptError(f"is of another version of fmmt-deploy: {error}") from error


def _check_time(text: str) -> None:
    try:
        zone = datetime.fromisoformat(text).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise JsonValueError("created", "a time with its zone", ascii(text)[:40])


def _sealed(body: bytes) -> bytes:
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + _BEHIND_SEAL
