"""Running `fmmt`, in this process or in one of its own."""

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from fmmt_deploy.cli import app
from fmmt_deploy.cli.app import main
from fmmt_deploy.cli.options import JsonOutput

REPOSITORY = Path(__file__).parents[2]
FMMT = (sys.executable, "-c", "import sys; from fmmt_deploy.cli.app import main; main(sys.argv[1:])")
"""What the installed `fmmt` does."""


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def in_own_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `code`, then fmmt."""
    code = f"{code}\nimport sys\nfrom fmmt_deploy.cli.app import main\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def command_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `fmmt fail [--json]` a command that raises `error`."""

    def fail(as_json: JsonOutput = False) -> NoReturn:
        del as_json
        raise error

    monkeypatch.setattr(app, "_commands", lambda: {"fail": fail, "other": fail})
