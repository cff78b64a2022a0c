"""Recipes: which precision each graph is to have, how to calibrate for it, what to keep back, and why one believes it.

TOML; tables and keys that are left out have their defaults, others than these are errors:

```toml
[precision]            # of each graph; those that are not named stay in float32
swin = "int8"
plm = "int8"

[calibration]          # see CalibrationSettings; dialogues = 0 takes all
method = "best"
smooth = ["plm"]

[keep]                 # patterns of names, as in a shell: products that are kept out of 8 bits, nodes kept in float32
plm = ["plm.encoder.layer.23/*"]

[evidence]             # what was found when it was made; nothing is done with it
```
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.calibration.thresholds import check_percentile
from fmmt_deploy.errors import UsageError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json
from fmmt_deploy.types import GraphName

__all__ = ["Evidence", "Recipe", "Tried", "check_patterns", "read_recipe", "recipe_from_toml", "toml_from_recipe"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One set of precisions that was judged.

    Attributes:
        precision: As `--precision` takes it; graphs that are not named were float32.
        kept_share: The largest share of a graph's FLOPs that was kept back, 0 to 1.
        agreement: Share of decisions that were the reference's; None if a graph could not be made.
        sqnr_db: Of the logits; None if there was no noise, or a number that is not finite.
        f1_points: Weighted F1 less the reference's, in points; None without labels.
        problems: Why it did not hold; empty if it did.
    """

    precision: str
    kept_share: float
    agreement: float | None = None
    sqnr_db: float | None = None
    f1_points: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found when a recipe was made.

    Attributes:
        created: When, ISO 8601.
        data: What it was judged on, for people.
        data_digest: Its content.
        bundle_digest: The model's: SHA-256 of its manifest.
        utterances: How many were judged.
        rule: What had to be held, in words.
        relative_time: About how long the model takes beside float32, as products were counted or measured.
        agreement: Share of decisions that are the reference's.
        sqnr_db: See `Tried`.
        f1_points: See `Tried`.
        f1_interval_points: Its interval of 95 %, by a bootstrap over dialogues: low, high. Empty if there is none.
        versions: Of what it was made with.
        tried: All that was judged, in order.
    """

    created: str
    data: str
    data_digest: str
    bundle_digest: str
    utterances: int
    rule: str
    relative_time: float
    agreement: float
    sqnr_db: float | None = None
    f1_points: float | None = None
    f1_interval_points: tuple[float, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is to be made faster.

    Attributes:
        source: The file it is from, for messages.
        precision: Of the graphs that it names.
        calibration: How to calibrate.
        keep: For graphs of these, patterns of what is kept back.
        evidence: Why it is believed; None if nobody has tried it.
    """

    source: str
    precision: Mapping[GraphName, Precision]
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    keep: Mapping[GraphName, tuple[str, ...]] = field(default_factory=dict)
    evidence: Evidence | None = None

    def precisions(self, architecture: Architecture) -> dict[GraphName, Precision]:
        """Of every graph of a model: float32 where the recipe does not name one."""
        return {graph: self.precision.get(graph, "fp32") for graph in graphs_of(architecture)}

    def of(self, architecture: Architecture) -> Recipe:
        """Without what is about graphs that a model does not have.

        Raises:
            UsageError: It is about none of the model's graphs.
        """
        graphs = graphs_of(architecture)
        precision = {graph: p for graph, p in self.precision.items() if graph in graphs}
        if not precision:
            raise UsageError(
                f"The recipe {self.source} is about {', '.join(self.precision)}; this model has {', '.join(graphs)}.",
                fix="Choose a recipe for this kind of model.",
                path=self.source,
            )
        smooth = tuple(graph for graph in self.calibration.smooth if graph in graphs)
        keep = {graph: patterns for graph, patterns in self.keep.items() if graph in graphs}
        return replace(self, precision=precision, calibration=replace(self.calibration, smooth=smooth), keep=keep)


@dataclass(frozen=True, slots=True)
class _File:
    """What a recipe's file may hold."""

    precision: Mapping[GraphName, Precision]
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    keep: Mapping[GraphName, tuple[str, ...]] = field(default_factory=dict)
    evidence: Evidence | None = None


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        UsageError: It can't be read, or something in it is unknown or impossible.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The recipe {path} can't be read.", why=str(error), fix="Give a TOML file.") from error
    return recipe_from_toml(text, str(path))


def recipe_from_toml(text: str, source: str) -> Recipe:
    """Reads the text of a recipe.

    Args:
        text: TOML.
        source: Where it is from, for messages.

    Raises:
        UsageError: Something in it is unknown or impossible; the message names the key.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"The recipe {source} is not TOML.", why=str(error), fix="See calibration/README.md.", path=source
        ) from error
    try:
        file = dataclass_from_json(_File, values)
        _check(file)
    except JsonValueError as error:
        raise UsageError(
            f"The recipe {source}: {error}.", fix="See calibration/README.md for the format.", path=source
        ) from error
    settings = replace(file.calibration, dialogues=file.calibration.dialogues or None)
    return Recipe(source, file.precision, settings, file.keep, file.evidence)


def toml_from_recipe(recipe: Recipe, comment: str = "") -> str:
    """The text of a recipe, which `recipe_from_toml` reads back as the same.

    Args:
        recipe: What to write.
        comment: Lines to put first; each gets its `#`.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    settings = asdict(recipe.calibration) | {"dialogues": recipe.calibration.dialogues or 0}
    lines += _table("[precision]", recipe.precision.items())
    lines += _table("[calibration]", settings.items())
    if recipe.keep:
        lines += _table("[keep]", recipe.keep.items())
    if recipe.evidence is not None:
        values = {item.name: getattr(recipe.evidence, item.name) for item in fields(recipe.evidence)}
        versions, tried = values.pop("versions"), values.pop("tried")
        lines += _table("[evidence]", values.items()) + _table("[evidence.versions]", versions.items())
        for each in tried:
            lines += _table("[[evidence.tried]]", asdict(each).items())
    return "\n".join(lines).strip("\n") + "\n"


def check_patterns(recipe: Recipe, names: Mapping[GraphName, Collection[str]]) -> None:
    """Refuses patterns that keep nothing back: a recipe of another version, or a slip of the pen.

    Args:
        recipe: Of this model, see `Recipe.of`.
        names: For each graph, what can be kept back in its precision.

    Raises:
        UsageError: A pattern fits nothing.
    """
    for graph, patterns in recipe.keep.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names[graph]):
                some = ", ".join(repr(name) for name in list(names[graph])[:2])
                raise UsageError(
                    f"The recipe {recipe.source}: keep.{graph} has {pattern!r}, which fits nothing of {graph} that "
                    f"{recipe.precision[graph]} would touch.",
                    why=f"That is called, for example, {some}." if some else "It would touch nothing.",
                    fix="Correct the pattern, or leave it out.",
                    path=recipe.source,
                )


def _check(file: _File) -> None:
    settings = file.calibration
    if not file.precision:
        raise JsonValueError("precision", "of at least one graph", "of none")
    for graph in file.keep:
        if file.precision.get(graph, "fp32") == "fp32":
            raise JsonValueError(f"keep.{graph}", "about a graph in a lower precision", "one in float32")
    for name, number in (("dialogues", settings.dialogues or 0), ("seed", settings.seed)):
        if number < 0:
            raise JsonValueError(f"calibration.{name}", "0 or more", str(number))
    if settings.seed >= 1 << 32:
        raise JsonValueError("calibration.seed", f"at most {(1 << 32) - 1}", str(settings.seed))
    try:
        check_percentile(settings.percentile)
    except UsageError as error:
        raise JsonValueError("calibration.percentile", "above 0 and at most 100", str(settings.percentile)) from error


def _table(head: str, values: Iterable[tuple[str, object]]) -> list[str]:
    return ["", head, *(f"{_key(name)} = {_value(value)}" for name, value in values if value is not None)]


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)


def _value(value: object) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, too, but for the one control character that JSON leaves
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, (tuple, list)):
        if len(value) > 1 and isinstance(value[0], str):
            return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
