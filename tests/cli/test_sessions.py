"""What commands say of an engine before they use it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.ort import signedness
from tests.cli.running import exit_code
from tests.engines.quantised import calibrated_bundle


@pytest.mark.parametrize(("found", "said"), [("unsigned", True), ("signed", False)])
def test_a_cpu_without_exact_sums_is_said(
    tiny_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: signedness.Signedness,
    said: bool,
) -> None:
    bundle = calibrated_bundle(tiny_bundle("unimodal"), tmp_path / "bundle", {"unimodal": "int8-fp32"})
    monkeypatch.setattr(signedness, "exact_signedness", lambda _: found)
    assert exit_code("parity", "-b", str(bundle.path), "--engine", "ort", "--precision", "int8-fp32") in (0, 4)
    assert ("no VNNI" in capsys.readouterr().err) == said
