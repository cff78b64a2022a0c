"""Recipes: a training's settings as TOML, changed by `--set`, each value with where it came from.

Tables are `[model]`, `[model.swin]`, `[faces]`, `[target]` and `[run]`, as `settings.Settings` has them; what is left
out has its default, and anything unknown is an error.
"""

from __future__ import annotations

import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path

from fmmt_deploy.errors import UsageError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json
from fmmt_deploy.training.limits import check_settings
from fmmt_deploy.training.settings import Settings

__all__ = [
    "MARK",
    "Effective",
    "effective_from_toml",
    "names_of_settings",
    "read_effective",
    "resumed_effective",
    "toml_from_effective",
]

MARK = "# Settings of a training by fmmt train."
"""How `settings.toml` begins: by it a folder is known to be a training's."""

_TOLD = re.compile(r"(\w+) = .*  # (default|--set|recipe .+)")
"""A line of it."""

_FIX = "docs/training.md lists all settings."


@dataclass(frozen=True, slots=True)
class Effective:
    """Settings, each with its source.

    Attributes:
        settings: All of them.
        sources: For each name, such as `target.epochs`: `default`, `recipe FILE` or `--set`.
    """

    settings: Settings
    sources: Mapping[str, str]

    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Name, value as TOML writes it, and source, of every setting."""
        return tuple((name, _toml(value), self.sources[name]) for name, value in _leaves(self.settings))


def read_effective(path: Path, changes: Sequence[str] = ()) -> Effective:
    """Reads a recipe and applies changes to it.

    Args:
        path: The recipe.
        changes: As `--set` takes them: `table.key=value`, later ones win.

    Raises:
        UsageError: It can't be read, or a setting is unknown, of another type, out of range, or contradicts another.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The recipe {path} can't be read.", why=str(error), fix="Give a TOML file.") from error
    return effective_from_toml(text, path.name, changes)


def effective_from_toml(text: str, source: str, changes: Sequence[str] = ()) -> Effective:
    """As `read_effective`, of a recipe's text.

    Args:
        text: TOML.
        source: The file's name, for messages and as a source.
        changes: See `read_effective`.

    Raises:
        UsageError: See `read_effective`.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and tables that deep
        raise UsageError(f"The recipe {source} is not TOML.", why=str(error), fix=_FIX, path=source) from error
    sources = dict.fromkeys(names_of_settings(), "default")
    try:
        sources |= dict.fromkeys(_given(Settings, values, source), f"recipe {source}")
        settings = dataclass_from_json(Settings, values)
    except JsonValueError as error:
        raise UsageError(f"The recipe {source}: {error}.", fix=_FIX, path=source) from error
    for change in changes:
        name, value = _changed(change)
        _put(values, name, value)
        sources[name] = "--set"
    try:
        settings = dataclass_from_json(Settings, values)
        check_settings(settings)
    except JsonValueError as error:
        changed = sources.get(error.where.partition("[")[0]) == "--set"
        about = "--set" if changed else f"The recipe {source}" + (" with what --set changes" if changes else "")
        raise UsageError(f"{about}: {error}.", fix=_FIX, path=source) from error
    return Effective(settings, sources)


def resumed_effective(path: Path, changes: Sequence[str] = ()) -> Effective:
    """Reads a run's own `settings.toml`: sources are those that it tells.

    Raises:
        UsageError: See `read_effective`.
    """
    found = read_effective(path, changes)
    told, table = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif source := _TOLD.fullmatch(line):
            told[f"{table}.{source[1]}"] = source[2]
    kept = {name: told.get(name, source) for name, source in found.sources.items() if source != "--set"}
    return Effective(found.settings, {**found.sources, **kept})


def toml_from_effective(effective: Effective) -> str:
    """The text of `settings.toml`: a recipe that gives the same settings, each with its source in a comment."""
    lines, table = [MARK], ""
    for name, value, source in effective.rows():
        before, _, key = name.rpartition(".")
        if before != table:
            lines += ["", f"[{before}]"]
            table = before
        lines.append(f"{key} = {value}  # {source}")
    return "\n".join(lines) + "\n"


def names_of_settings() -> tuple[str, ...]:
    """Of every setting, with its table: `model.modality`, `model.swin.depths` and so on."""
    return tuple(name for name, _ in _leaves(Settings()))


def _leaves(value: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Name and value of every setting; a table's own come before the tables in it, as TOML needs them."""
    if not is_dataclass(value):
        yield where, value
        return
    members = [(field.name, getattr(value, field.name)) for field in fields(value)]
    for name, member in sorted(members, key=lambda pair: is_dataclass(pair[1])):
        yield from _leaves(member, f"{where}.{name}" if where else name)


def _given(kind: type, values: Mapping[str, object], source: str, where: str = "") -> Iterator[str]:
    """Names of the settings that a recipe gives.

    Raises:
        UsageError: One is not known; it names the nearest that is.
        JsonValueError: A table is none.
    """
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in hints:
            raise UsageError(f"The recipe {source}: there is no setting {name!r} ({_nearest(name)}).", fix=_FIX)
        if not is_dataclass(hints[key]):
            yield name
        elif isinstance(value, dict):
            yield from _given(hints[key], value, source, name)
        else:
            raise JsonValueError(name, "a table", ascii(value)[:60])


def _changed(change: str) -> tuple[str, object]:
    """The name and the value of one `--set`."""
    name, equals, text = (part.strip() for part in change.partition("="))
    if not equals:
        raise UsageError(
            f"--set {change}: expected table.key=value, found no '='.", fix="For example --set target.epochs=3."
        )
    if name not in names_of_settings():
        raise UsageError(f"--set {change}: there is no setting {name!r} ({_nearest(name)}).", fix=_FIX)
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return name, text  # text needs no quotes here: the shell would take them away
    return name, values["value"] if len(values) == 1 else text  # more than one: there was a line break in it


def _put(values: dict[str, typing.Any], name: str, value: object) -> None:
    *tables, key = name.split(".")
    for table in tables:
        values = values.setdefault(table, {})
    values[key] = value


def _nearest(name: str) -> str:
    known = names_of_settings()
    key = name.rpartition(".")[2]
    elsewhere = [each for each in known if each.rpartition(".")[2] == key]
    near = [*elsewhere, *get_close_matches(name, known, n=1, cutoff=0.4)]
    return f"did you mean {near[0]}?" if near else "tables are model, model.swin, faces, target and run"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
