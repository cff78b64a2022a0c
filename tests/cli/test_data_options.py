"""Options about a data set are refused where there is none, instead of ignored."""

from collections.abc import Callable

import pytest

from fmmt_deploy.bundle.store import Bundle
from tests.cli.running import exit_code


@pytest.mark.parametrize("command", [("cast", "--precision", "fp16"), ("parity",), ("bench",)], ids=lambda c: c[0])
@pytest.mark.parametrize("option", [("--limit", "2"), ("--faces-dir", "faces")], ids=lambda o: o[0])
def test_without_data(
    tiny_bundle: Callable[[str], Bundle],
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    option: tuple[str, str],
) -> None:
    assert exit_code(*command, "-b", str(tiny_bundle("unimodal").path), *option) == 2
    assert f"{option[0]} is about a data set, and none is given." in capsys.readouterr().err
