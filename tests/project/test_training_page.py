"""docs/training.md: its settings are those there are, and its commands are commands."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fmmt_deploy.cli.app import build_app, main
from fmmt_deploy.training.recipes import names_of_settings
from tests.project.test_documents import ROOT, shell_commands

PAGES = [ROOT / "docs" / "training.md", ROOT / "training" / "README.md"]


def test_tables_are_what_the_settings_say() -> None:
    command = [sys.executable, ROOT / "scripts" / "settings_docs.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_setting_is_on_the_page() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    parts = re.split(r"^\*\*`\[([\w.]+)\]`\*\*$", text.partition("<!-- end of settings -->")[0], flags=re.MULTILINE)
    tables = zip(parts[1::2], parts[2::2], strict=True)
    told = {f"{table}.{key}" for table, rows in tables for key in re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)}
    assert told == set(names_of_settings())


def test_settings_named_in_the_text_exist() -> None:
    known = names_of_settings()
    tables = "|".join({name.partition(".")[0] for name in known})
    for page in PAGES:
        named = set(
            re.findall(rf"`(?:--set )?((?:{tables})\.[a-z_.]+)(?![a-z_.]*\.md)", page.read_text(encoding="utf-8"))
        )
        assert {name for name in named if not name.endswith((".toml", ".safetensors", ".bin"))} <= set(known), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_commands_have_the_options_they_are_given(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for line in shell_commands(page)]
    ours = [words[words.index("fmmt") + 1 :] for words in commands if "fmmt" in words]
    assert any(words[0] == "train" for words in ours)
    names = {command.name for command in build_app().registered_commands}
    for command, *words in ours:
        assert command in names, command
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", capsys.readouterr().out))
        assert {word for word in words if word.startswith("-")} <= options, command
        for recipe in (word for word in words if word.endswith(".toml")):
            assert tomllib.loads((ROOT / recipe).read_text(encoding="utf-8"))
