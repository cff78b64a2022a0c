"""Writes docs/cli.md from the commands' own help; `--check` only says whether it is up to date."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from fmmt_deploy.cli.app import build_app, main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

HEAD = """# Command line

Written by `make docs` from the commands' own help; a test compares the two.
"""


def help_of(*command: str) -> str:
    """What `fmmt COMMAND --help` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = "80"
    commands = [command.name for command in build_app().registered_commands if command.name]
    parts = [("fmmt", help_of()), *((f"fmmt {name}", help_of(name)) for name in commands)]
    return HEAD + "".join(f"\n## `{title}`\n\n```text\n{text}\n```\n" for title, text in parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/cli.md is out of date: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
