"""Where answers may be written."""

from pathlib import Path

import pytest

from fmmt_deploy.errors import UsageError
from fmmt_deploy.pipeline.answers import check_new_file, write_text
from tests.bundle.samples import make_bundle


@pytest.mark.parametrize("name", ["manifest.json", "new.jsonl", "receipts/new.jsonl"])
def test_no_file_may_be_inside_a_bundle(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "b", 1).path
    with pytest.raises(UsageError, match="is inside the bundle"):
        check_new_file(bundle / name, force=True)


def test_nothing_is_written_into_a_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", 1).path
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="is inside the bundle"):
        write_text(bundle / "manifest.json", "", force=True)
    assert (bundle / "manifest.json").read_bytes() == before


def test_stdout_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other programs take `-`, it would be a file that is hard to remove."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="named -"):
        check_new_file(Path("-"), force=True)


def test_a_file_beside_a_bundle_may_be_written(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", 1)
    write_text(tmp_path / "new.jsonl", "{}\n", force=False)
    assert (tmp_path / "new.jsonl").read_text() == "{}\n"
