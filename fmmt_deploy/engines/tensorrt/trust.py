"""Whether an engine has shown that it agrees with itself: the verdict of `fmmt parity --self`, beside its file.

A verdict names the plan it is about by its hash, so that one about an engine that was since built again says nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fmmt_deploy.bundle.sealed import BrokenSealError, read_document, write_sealed
from fmmt_deploy.errors import ArtefactError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json

__all__ = ["Verdict", "check_trusted", "read_verdict", "verdict_path", "write_verdict"]

SCHEMA = 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the self-consistency gate found.

    Attributes:
        schema: Version of this format.
        engine_sha256: Of the plan it is about.
        checks: The checks that were made.
        failed: Those of them that failed.
        gpu: On which GPU, or "" where none was named.
        version: The full version of the TensorRT that ran it.
        created: When, ISO 8601; default now.
    """

    schema: int = SCHEMA
    engine_sha256: str
    checks: tuple[str, ...]
    failed: tuple[str, ...]
    gpu: str
    version: str
    created: str = field(default_factory=_now)

    @property
    def passed(self) -> bool:
        """Whether something was checked, and nothing failed."""
        return bool(self.checks) and not self.failed


def verdict_path(engine_file: Path) -> Path:
    """Where the verdict on an engine is, or would be."""
    return engine_file.with_name(f"{engine_file.name}.verdict")


def read_verdict(engine_file: Path) -> Verdict | None:
    """The verdict on the plan that is in an engine file now; None if there is none, or none that can be relied on.

    Raises:
        BrokenSealError: The engine file itself is not whole.
        OSError: It can't be read.
    """
    _, plan = read_document(engine_file)
    try:
        values, _ = read_document(verdict_path(engine_file))
        verdict = dataclass_from_json(Verdict, values)
    except (FileNotFoundError, BrokenSealError, JsonValueError):  # absent, altered or of another version: no verdict
        return None
    return verdict if (verdict.schema, verdict.engine_sha256) == (SCHEMA, plan.sha256) else None


def write_verdict(
    engine_file: Path,
    *,
    checks: tuple[str, ...],
    failed: tuple[str, ...],
    gpu: str = "",
    version: str = "",
    engine_sha256: str | None = None,
) -> Verdict:
    """Writes the verdict on an engine, all or nothing; an older one is replaced.

    Args:
        engine_file: It.
        checks: See `Verdict`, as for the next three.
        failed: Those that failed.
        gpu: On which GPU.
        version: The TensorRT that ran it.
        engine_sha256: Of the plan that was tried; default of the one that is in the file now.

    Raises:
        BrokenSealError: The engine file is not whole.
        EnvironmentProblem: The disk is full, or the folder can't be written.
    """
    digest = engine_sha256 or read_document(engine_file)[1].sha256
    verdict = Verdict(engine_sha256=digest, checks=checks, failed=failed, gpu=gpu, version=version)
    write_sealed(verdict_path(engine_file), asdict(verdict), memoryview(b""))
    return verdict


def check_trusted(engine_file: Path, gpu: str | None = None) -> None:
    """Refuses an engine that has not shown that it agrees with itself.

    Args:
        engine_file: It.
        gpu: The GPU it is to run on; a verdict from another says nothing. Default whichever.

    Raises:
        ArtefactError: There is no verdict on it, a negative one, or one from another GPU.
    """
    verdict = read_verdict(engine_file)
    if verdict is not None and verdict.passed and gpu in (None, verdict.gpu):
        return
    if verdict is None:
        what = "has not been held against itself yet"
    elif not verdict.passed:
        what = f"failed the self-consistency gate on {verdict.created}"
    else:
        what = f"was held against itself on {verdict.gpu or 'another GPU'}, not on {gpu}"
    raise ArtefactError(
        f"The engine {engine_file.name} {what}.",
        why="TensorRT has shipped engines whose answers depend on their batch; ours are not used before they are shown "
        "not to.",
        fix="Run `fmmt parity --self` with this bundle, engine and precision"
        + ("; if it fails again, build it anew." if verdict is not None and not verdict.passed else "."),
        path=engine_file,
    )
