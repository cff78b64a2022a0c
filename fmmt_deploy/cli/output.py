"""The only place that prints: results on stdout, everything else on stderr.

A command shows one result, through `Output.result`: aligned text, or with `--json` one JSON object whose first member
is `"schema": "fmmt.<command>/N"`. Its error, if there is one and no result was shown before, is then a JSON object too
(`fmmt.error/1`: `exit_code`, `kind`, `what`, `why`, `fix`, `path`, `tensor`), so that with `--json` stdout parses
whatever happens once the command line itself was understood. JSON knows no NaN and no infinity; they become null.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import PurePath
from typing import TextIO

from fmmt_deploy.errors import FmmtError
from fmmt_deploy.foreign_text import harmless, harmless_json

__all__ = ["CLOSED_PIPE", "WIDTH", "Output", "Table", "plain_values", "readable_bytes", "show_error", "start"]

WIDTH = 100
"""Tables are wrapped to so many columns."""

CLOSED_PIPE = 141
"""Exit code when the reader of our output went away, as if SIGPIPE had ended us: 128 + 13."""

_GAP = "  "
_NARROWEST = 12
_NUMBER = re.compile(r"[-+±]?[\d.,]+(e[-+]?\d+)?\s?(%|×|[kMGT]?B)?|nan|-?inf")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; a column of numbers only is set to the right.

    Attributes:
        title: A line above it, or nothing.
        columns: Column heads; none for a plain list of names and values.
        rows: Cells, shown with `str`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        body = [[harmless(str(cell)) for cell in row] for row in self.rows]  # here, so that its width is counted
        lines = ([list(self.columns)] if self.columns else []) + body
        right = [_is_numeric(column[bool(self.columns) :]) for column in zip(*lines, strict=True)]
        widths = _widths(lines)
        text = [line for row in lines for line in _row_lines(row, widths, right)]
        return "\n".join([self.title, *text] if self.title else text)


class Output:
    """What one command shows.

    Args:
        command: Its name, for the schema.
        as_json: Whether the result is JSON.
        quiet: Whether to leave out status lines and progress.
        version: Of the schema.
    """

    def __init__(self, command: str, as_json: bool = False, quiet: bool = False, version: int = 1) -> None:
        self.command, self.as_json, self.quiet, self.version = command, as_json, quiet, version

    def result(self, document: Mapping[str, object], *parts: Table | str) -> None:
        """Shows the result, once.

        Args:
            document: It, for `--json`: plain values, dataclasses, paths.
            parts: The same for people, separated by empty lines.
        """
        if self.as_json:
            _show_document({"schema": self.schema, **document})
        else:
            _write(harmless("\n\n".join(str(part) for part in parts)) + "\n")

    @property
    def schema(self) -> str:
        """The first member of the result's JSON."""
        return f"fmmt.{self.command}/{self.version}"

    def status(self, message: str) -> None:
        """Says on stderr what is going on."""
        if not self.quiet:
            _say(message)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on stderr, if that is a terminal.

        Args:
            what: What is being done.
            total: How many steps it has.

        Yields:
            To be called with the number of steps just done.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)

    @contextmanager
    def phases(self, what: str) -> Iterator[Callable[[str, int, int], None]]:
        """A bar on stderr, if that is a terminal, for work that goes through phases of its own.

        Args:
            what: What is being done.

        Yields:
            To be called with the phase's name, how many of its steps are done, and how many it has; from any thread.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda *_: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda phase, done, total: bar.update(
                task, description=f"{what}: {phase}", completed=done, total=total
            )


def start() -> None:
    """Begins a command line: nothing was shown yet, and no name of a file can keep anything from being shown."""
    _Shown.document = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_error(error: FmmtError, as_json: bool = False, details: str = "") -> None:
    """Shows an error on stderr, and with `as_json` on stdout too unless a result is there already.

    Args:
        error: It.
        as_json: Whether `--json` was asked for.
        details: A traceback, or nothing.
    """
    if details:
        _say(details.rstrip())
    lines = [f"error: {error.what}"]
    lines += [f"  {name}: {text}" for name, text in (("why", error.why), ("fix", error.fix)) if text]
    _say("\n".join(line.replace("\n", "\n    ") for line in lines))  # none may read like the next of ours
    if as_json and not _Shown.document:
        names = ("what", "why", "fix", "path", "tensor")
        values = {name: getattr(error, name) for name in names}
        _show_document({"schema": "fmmt.error/1", "exit_code": error.exit_code, "kind": type(error).__name__, **values})


def readable_bytes(count: int) -> str:
    """A size for people, in powers of ten: `12.3 MB`."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


class _Shown:
    """Whether a JSON document is on stdout: an error must not be a second one."""

    document = False


def _show_document(document: Mapping[str, object]) -> None:
    _Shown.document = True
    plain = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    text = json.dumps(plain_values(document), indent=2, ensure_ascii=plain, allow_nan=False)
    _write(harmless_json(text) + "\n")


def plain_values(value: object) -> object:
    """What JSON can hold: dataclasses and mappings as objects, paths as text, no NaN and no infinity."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain_values(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        raise SystemExit(CLOSED_PIPE) from None


def _say(text: str) -> None:
    try:
        print(harmless(text), file=sys.stderr, flush=True)  # noqa: T201  # the one place that may
    except BrokenPipeError:
        _silence(sys.stderr)  # nobody reads on: the work and its exit code are what they are


def _silence(stream: TextIO) -> None:
    """Lets what is still buffered go nowhere: it would fail again, loudly, when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_numeric(column: Sequence[str]) -> bool:
    cells = [cell for cell in column if cell not in ("", "–")]
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """Natural widths, the widest columns narrowed until a row fits `WIDTH`, but none so far that it shifts others."""
    columns = list(zip(*lines, strict=True))
    widths = [max(1, *map(len, column)) for column in columns]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    narrowest = [*(max(_NARROWEST, longest) for longest in words[:-1]), _NARROWEST]  # nothing stands right of the last
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        slack = [i for i, width in enumerate(widths) if width > narrowest[i]]
        if not slack:
            break
        widths[max(slack, key=widths.__getitem__)] -= 1
    return widths


def _row_lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    wrapped = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
        for cell, width in zip(row, widths, strict=True)
    ]
    lines = []
    for i in range(max(map(len, wrapped), default=0)):
        cells = [cell[i] if i < len(cell) else "" for cell in wrapped]
        aligned = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        lines.append(_GAP.join(aligned).rstrip())
    return lines
