"""`manifest.json`: what a bundle holds, and the SHA-256 of every file in it.

Each graph's weights are one safetensors file beside its float32 ONNX file (`graphs/fp32/swin.onnx` and
`graphs/fp32/swin.safetensors`), and that file is two things at once: the graph's external data, which it refers to by
byte offset, and the weights of the PyTorch reference, which finds them there by name. So both compute on the same
bytes, bit for bit, and parity needs no checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fmmt_deploy.architecture import Architecture, size_problem
from fmmt_deploy.errors import BundleError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.names import EMOTIONS, GraphName

__all__ = [
    "MANIFEST_NAME",
    "PRECISIONS",
    "SCHEMA",
    "FileEntry",
    "Manifest",
    "Precision",
    "SourceEntry",
    "check_relative_path",
    "graphs_of",
    "json_from_manifest",
    "manifest_from_json",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
_LARGEST_BYTES = 16 * 2**20

Precision = Literal["fp32", "fp16", "bf16", "int8-fp32", "int8", "fp8"]
"""What a graph's products are computed in. `int8` and `fp8` have 8-bit operands and float16 around them, for GPUs;
`int8-fp32` has the integers of `int8` and float32 around them, for CPUs."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8-fp32", "int8", "fp8")

_EXPORT_AGAIN = "Export the bundle again with `fmmt export`."
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a bundle: its SHA-256 (64 lower-case hexadecimal digits) and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """What the bundle was made from: each checkpoint's name and its SHA-256."""

    checkpoints: Mapping[str, str]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle's table of contents.

    Attributes:
        schema: Version of this format.
        architecture: The model's kind and sizes.
        emotions: Label names, index = label.
        tau: Temperature of the faces' softmax, above 0.
        threshold: A face is kept if the sum of its squared probabilities is above this; 0 to 1.
        graphs: For each graph, the ONNX file of each precision; float32's has its weights beside it, see above.
        tokenizer: `tokenizer.json`, where the model reads text.
        self_test: Inputs and outputs of every graph, see `selftest`.
        files: Every file but the manifest; filled in by `BundleWriter.commit`.
        source: The checkpoints it was made from.
        tools: Names and versions of what made it; `fmmt-deploy` is filled in by `BundleWriter.commit`.
        created: When, ISO 8601; default now.

    All paths are relative to the bundle, with `/`.
    """

    schema: int = SCHEMA
    architecture: Architecture
    emotions: tuple[str, ...] = EMOTIONS
    tau: float = 1.0
    threshold: float = 0.2
    graphs: Mapping[GraphName, Mapping[Precision, str]]
    tokenizer: str | None = None
    self_test: str | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    source: SourceEntry
    tools: Mapping[str, str] = field(default_factory=dict)
    created: str = field(default_factory=_now)


def graphs_of(architecture: Architecture) -> tuple[GraphName, ...]:
    """Which graphs a model of this kind consists of."""
    return ("unimodal",) if architecture.modality == "V" else ("swin", "plm", "fusion")


def json_from_manifest(manifest: Manifest) -> str:
    """The manifest as indented JSON, ending in a newline."""
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def manifest_from_json(text: str) -> Manifest:
    """Reads and checks a manifest; no field is optional in a file, and none may be unknown.

    Args:
        text: The content of `manifest.json`.

    Raises:
        BundleError: It is malformed, inconsistent, or of another schema version.
    """
    try:
        values = json_object_from_text(text)
        _check_schema(values)
        for field_ in fields(Manifest):
            if field_.name not in values:
                raise JsonValueError(field_.name, "present", "nothing")
        manifest = dataclass_from_json(Manifest, values)
        _check(manifest)
    except JsonValueError as error:
        raise BundleError(f"{MANIFEST_NAME} is not valid: {error}.", fix=_EXPORT_AGAIN) from error
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`.

    Raises:
        BundleError: There is none, or it is malformed, inconsistent, too large, or of another schema version.
        OSError: It can't be read.
    """
    file = path / MANIFEST_NAME
    if not file.is_file():
        what = "does not exist" if not path.exists() else f"has no {MANIFEST_NAME}, so it is not a bundle"
        raise BundleError(f"{path} {what}.", fix="Give the directory that `fmmt export` wrote.", path=path)
    if file.stat().st_size > _LARGEST_BYTES:
        raise BundleError(f"{file} is larger than any manifest.", fix=_EXPORT_AGAIN, path=file)
    try:
        return manifest_from_json(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{file} is not UTF-8 text.", fix=_EXPORT_AGAIN, path=file) from error


def check_relative_path(path: str) -> None:
    """Checks that a path stays in its bundle, on every operating system.

    Raises:
        BundleError: It is absolute, empty, has `..`, a backslash, a colon or a control character, or is the manifest's.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\x00-\x1f\x7f]", path) or len(path) > 1024:
        raise BundleError(
            f"A bundle's path must be relative and stay inside the bundle, found {ascii(path)[:200]}.",
            fix="Don't use this bundle unless you know who made it. " + _EXPORT_AGAIN,
            path=ascii(path)[:200],
        )
    if path == MANIFEST_NAME:
        raise BundleError(f"{MANIFEST_NAME} can't be one of the files it lists.", fix=_EXPORT_AGAIN, path=path)


def _check_schema(values: Mapping[str, object]) -> None:
    schema, tools = values.get("schema"), values.get("tools")
    if isinstance(schema, bool) or not isinstance(schema, int):
        raise JsonValueError("schema", "a whole number", "something else or nothing")
    if schema != SCHEMA:
        version = tools.get("fmmt-deploy") if isinstance(tools, dict) else None
        writer = f"fmmt-deploy {ascii(version)[1:-1][:40]}" if isinstance(version, str) else "an unknown version"
        number = schema if abs(schema) < 10**9 else "of many digits"
        raise BundleError(
            f"The bundle has schema {number}, written by {writer}; this fmmt-deploy reads schema {SCHEMA}.",
            fix="Export it again with this version, or use the version that wrote it.",
        )


def _check(manifest: Manifest) -> None:
    _check_architecture(manifest.architecture)
    if len(manifest.emotions) != len(EMOTIONS) or len(set(manifest.emotions)) != len(EMOTIONS):
        raise JsonValueError("emotions", f"{len(EMOTIONS)} different names", f"{len(set(manifest.emotions))}")
    if not 0 < manifest.tau <= 1e6:
        raise JsonValueError("tau", "above 0 and at most 1000000", str(manifest.tau))
    if not 0 <= manifest.threshold <= 1:
        raise JsonValueError("threshold", "between 0 and 1", str(manifest.threshold))
    _check_graphs(manifest)
    _check_files(manifest)
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError as error:
        raise JsonValueError("created", "an ISO 8601 time", ascii(manifest.created)[:60]) from error


def _check_graphs(manifest: Manifest) -> None:
    wanted = graphs_of(manifest.architecture)
    if set(manifest.graphs) != set(wanted):
        raise JsonValueError("graphs", "exactly " + ", ".join(wanted), ", ".join(manifest.graphs) or "none")
    for name, by_precision in manifest.graphs.items():
        if not by_precision:
            raise JsonValueError(f"graphs.{name}", "a file for at least one precision", "none")


def _check_files(manifest: Manifest) -> None:
    for path, entry in manifest.files.items():
        check_relative_path(path)
        _check_sha256(entry.sha256, f"files.{path}.sha256")
        if not 0 <= entry.size_bytes < 2**63:
            raise JsonValueError(f"files.{path}.size_bytes", "a file's size", "something else")
    for name, digest in manifest.source.checkpoints.items():
        _check_sha256(digest, f"source.checkpoints.{name}")
    for where, path in _used_paths(manifest):
        check_relative_path(path)
        if path not in manifest.files:
            raise JsonValueError(where, "a file listed under files", f"{path!r}, which is not")


def _used_paths(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name, by_precision in manifest.graphs.items():
        for precision, path in by_precision.items():
            yield f"graphs.{name}.{precision}", path
    for where, optional in (("tokenizer", manifest.tokenizer), ("self_test", manifest.self_test)):
        if optional is not None:
            yield where, optional


def _check_sha256(digest: str, where: str) -> None:
    if not _SHA256.fullmatch(digest):
        raise JsonValueError(where, "64 hexadecimal digits", ascii(digest)[:70])


def _check_architecture(architecture: Architecture) -> None:
    wanted = {"unimodal"} if architecture.modality == "V" else {"swin", "plm", "fusion"}
    for part in ("swin", "plm", "fusion", "unimodal"):
        sizes = getattr(architecture, part)
        if (sizes is not None) != (part in wanted):
            raise JsonValueError(
                f"architecture.{part}",
                "present" if part in wanted else "null",
                f"the other, in a model of {architecture.modality}",
            )
        if sizes is not None and (problem := size_problem(sizes)) is not None:
            raise JsonValueError(f"architecture.{part}.{problem.field}", problem.expected, problem.found)
