"""Writes the tables of settings in docs/training.md from the settings themselves; `--check` only compares."""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from dataclasses import fields
from pathlib import Path

from fmmt_deploy.architecture import SwinSizes
from fmmt_deploy.training.limits import RANGES
from fmmt_deploy.training.settings import FaceSettings, ModelSettings, RunSettings, TargetSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- settings: written by make docs -->\n", "<!-- end of settings -->"
TABLES = {
    "model": ModelSettings,
    "model.swin": SwinSizes,
    "faces": FaceSettings,
    "target": TargetSettings,
    "run": RunSettings,
}


def descriptions(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of each attribute."""
    _, _, text = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(line.strip() for line in said.splitlines()) for name, said in entries}


def allowed(name: str, hint: object) -> str:
    """Which values a setting may have."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if hint is bool:
        return "`true`, `false`"
    return str(RANGES[name]) if name in RANGES else "whole numbers above 0"


def rows(table: str, kind: type) -> list[str]:
    """One line a setting."""
    hints, said, lines = typing.get_type_hints(kind), descriptions(kind), []
    for field in fields(kind):
        name = f"{table}.{field.name}"
        if name in TABLES:
            continue
        default = json.dumps(field.default)
        lines.append(f"| `{field.name}` | `{default}` | {allowed(name, hints[field.name])} | {said[field.name]} |")
    return lines


def section() -> str:
    """All tables."""
    head = "| setting | default | allowed | is |\n|---|---|---|---|\n"
    parts = [f"\n**`[{table}]`**\n\n{head}" + "\n".join(rows(table, kind)) + "\n" for table, kind in TABLES.items()]
    return BEGIN + "".join(parts) + "\n" + END


def page(text: str) -> str:
    """The page with the tables in it."""
    before, _, rest = text.partition(BEGIN)
    return before + section() + rest.partition(END)[2]


if __name__ == "__main__":
    found = PAGE.read_text(encoding="utf-8")
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if found == page(found) else "docs/training.md is out of date: run make docs")
    PAGE.write_text(page(found), encoding="utf-8")
