"""What a report is made of, before it is HTML or Markdown: sections of text, tables, charts and large figures.

In every text, what stands between `backticks` is code; nothing else has a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

__all__ = [
    "Block",
    "Charts",
    "Code",
    "Face",
    "Faces",
    "Figure",
    "Heading",
    "Level",
    "Listing",
    "Numbers",
    "Paragraph",
    "Section",
    "Table",
    "Verdict",
]

Level: TypeAlias = Literal["good", "warn", "bad", "none"]
"""`good`: may be relied on; `bad`: must not; `warn`: not shown; `none`: not judged."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text; a `note` is set apart, a `lead` opens a section."""

    kind: ClassVar = "paragraph"
    words: str
    style: Literal["", "note", "lead"] = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """Of a part of a section."""

    kind: ClassVar = "heading"
    words: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Texts under each other."""

    kind: ClassVar = "listing"
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands."""

    kind: ClassVar = "code"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: Heads; `>` before one of numbers, `#` before one of hashes, `~` before one of long texts,
            `!` before one that is not broken.
        rows: Cells, as many as heads; the first is the row's name.
        caption: Above it.
        folded: What is clicked to see it, where few need it; on paper it is always seen.
        total: Whether the last row sums up.
    """

    kind: ClassVar = "table"
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    folded: str = ""
    total: bool = False

    @property
    def heads(self) -> tuple[tuple[str, str], ...]:
        """Name and class of each column."""
        classes = {">": "n", "#": "hash", "~": "long", "!": "fix"}
        return tuple((c.lstrip("".join(classes)), classes.get(c[:1], "")) for c in self.columns)


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with what is to be seen in it."""

    svg: Markup
    title: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts side by side, where there is room, with a table of their figures as the last."""

    kind: ClassVar = "charts"
    figures: tuple[Figure, ...]
    beside: Table | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Large figures: name, number, and what it is of."""

    kind: ClassVar = "numbers"
    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding: how it is meant, its word, its title, and the evidence for it."""

    kind: ClassVar = "verdict"
    level: Level
    mark: str
    title: str
    blocks: tuple[Paragraph | Listing | Code, ...] = ()


@dataclass(frozen=True, slots=True)
class Face:
    """A picture: its bytes as a `data:` address, what became of it, and words under it."""

    source: str
    state: Literal["kept", "dropped", "turned", "shown"]
    words: str


@dataclass(frozen=True, slots=True)
class Faces:
    """Pictures in a row, of one utterance."""

    kind: ClassVar = "faces"
    faces: tuple[Face, ...]


Block: TypeAlias = Paragraph | Heading | Listing | Code | Table | Charts | Numbers | Verdict | Faces


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report under a heading of its own.

    Attributes:
        name: For links to it.
        title: Its heading.
        blocks: What is in it.
        new_sheet: Whether it begins a sheet of paper.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    new_sheet: bool = False
