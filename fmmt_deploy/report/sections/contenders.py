"""How a benchmark's rows are named, coloured and marked, the same in every section and in the card."""

from __future__ import annotations

from collections.abc import Iterable

from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.figures import NONE, short

__all__ = ["colour", "contender", "engine_colours", "ratio_words", "validity_mark", "validity_word"]

_WAYS = {
    "published": "the published loop",
    "alone": "no cache",
    "cached": "dialogue cached, batch 1",
    "together": "no cache, batched",
    "batched": "dialogue cached, batched",
}
_COLOURS = 6


def colour(place: int) -> int:
    """The colour of the row at that place."""
    return place % _COLOURS + 1


def engine_colours(rows: Iterable[Document]) -> dict[str, int]:
    """A colour for each engine, whatever it does, in the order of the first row of each."""
    engines = dict.fromkeys(row["engine"].text for row in rows)
    return {engine: colour(place) for place, engine in enumerate(engines)}


def contender(row: Document) -> str:
    """`ort, dialogue cached, batched`."""
    way = row["way"].text
    return f"{row['engine'].text}, {_WAYS.get(way, way)}"


def validity_word(document: Document) -> str:
    """`✓ VALID` or `✗ INVALID`; of a row with a ratio both must be valid, as `fmmt bench` has it."""
    valid = False if document["ratio"]["valid"].flag is False else document["valid"].flag
    return NONE if valid is None else "✓ VALID" if valid else "✗ INVALID"


def validity_mark(document: Document) -> str:
    """The same for a cell: what is valid needs no word."""
    return validity_word(document).replace(" VALID", "")


def ratio_words(ratio: Document) -> str:
    """`2.31× (2.24 to 2.40)`."""
    median, low, high = (ratio[name].number for name in ("median", "low", "high"))
    if median is None:
        return NONE
    return f"{short(median)}×" + ("" if low is None or high is None else f" ({short(low)} to {short(high)})")
