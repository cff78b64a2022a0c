"""Documents that can be wrong are tried out: the CLI reference, the README's commands, links between pages."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fmmt_deploy.demo import make_demo

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])


def shell_commands(page: Path) -> list[str]:
    """The lines of a page's ```sh blocks, continuation lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_cli_reference_is_what_the_commands_say() -> None:
    command = [sys.executable, ROOT / "scripts" / "cli_docs.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead: its headings, as GitHub makes anchors of them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text(encoding="utf-8"))
    assert not [link for link, _ in links if not (page.parent / link).exists()]
    targets = {anchor: page.parent / link if link else page for link, anchor in links if anchor}
    assert not [anchor for anchor, target in targets.items() if anchor not in anchors(target)]


def test_make_targets_of_every_page_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {command.split()[1] for page in PAGES for command in shell_commands(page) if command.startswith("make ")}
    assert {"demo", "test"} <= named <= targets


ONE_EPOCH = ("--set", "target.epochs=1", "--set", "faces.epochs=1")
"""All of them are made by a test of the demo's."""


@pytest.mark.slow
def test_readme_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `fmmt` line of the README, in order, in a folder where the demo was made."""
    from fmmt_deploy.cli.app import main

    make_demo(tmp_path / "demo-out")
    (tmp_path / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in shell_commands(ROOT / "README.md") if line.startswith("fmmt ")]
    names = {command[1] for command in commands}
    assert {"train", "export", "inspect", "run", "parity", "eval", "bench", "doctor"} <= names
    for command in commands:
        shorter = ONE_EPOCH if command[1] == "train" else ()
        with pytest.raises(SystemExit) as ended:
            main([*command[1:], *shorter])
        assert ended.value.code == 0, shlex.join(command)
