"""A bundle and the receipt of how it was made appear together, whatever else happens at that moment."""

import subprocess
import sys
from pathlib import Path

from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.check import check_bundle
from fmmt_deploy.receipts.kept import read_receipts
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.store import append_receipt
from tests.bundle.samples import make_bundle
from tests.killing import REPOSITORY, count_calls, kill

EXTEND = """
import sys
from dataclasses import replace
from pathlib import Path
from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import UsageError
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.store import add_receipt, append_receipt

def extend(path, name):
    bundle = Bundle.open(path)
    graphs = {"unimodal": {**bundle.manifest.graphs["unimodal"], "fp16": name}}

    def finish(directory, made):
        outputs = {each: hash_file(directory / each) for each in (name, "manifest.json")}
        add_receipt(directory, Receipt(command="cast", seconds=1.0, outputs=outputs))

    with extend_bundle(bundle, without=[name]) as writer:
        writer.place(name).write_bytes(bundle.graph("unimodal").read_bytes())
        return writer.commit(replace(bundle.manifest, graphs=graphs), finish)
"""

KILLED = (
    EXTEND
    + """
from tests.killing import deadly

calls = [f"os.{name}" for name in ("rename", "replace", "mkdir", "fsync", "unlink", "rmdir", "link")]
with deadly(int(sys.argv[2]), *calls):
    extend(Path(sys.argv[1]), "graphs/fp16/unimodal.onnx")
"""
)


def begun(path: Path) -> Bundle:
    """A bundle with one receipt, which vouches for its manifest."""
    from fmmt_deploy.bundle.integrity import hash_file

    bundle = make_bundle(path)
    outputs = {MANIFEST_NAME: hash_file(path / MANIFEST_NAME)}
    append_receipt(bundle, Receipt(command="export", seconds=1.0, outputs=outputs))
    return bundle


def test_killed_at_every_step(tmp_path: Path) -> None:
    begun(tmp_path / "count")
    steps = count_calls(KILLED, tmp_path / "count")
    assert steps > 15
    seen = []
    for call in range(1, steps + 1):
        path = begun(tmp_path / str(call)).path
        kill(KILLED, path, call)
        cast = "fp16" in Bundle.open(path).manifest.graphs["unimodal"]
        assert [receipt.command for receipt in read_receipts(path)] == ["export", "cast"][: 1 + cast]
        checked = check_bundle(path)
        assert (checked.problems, checked.notes) == ((), ())
        seen.append(cast)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


REPEATED = (
    EXTEND
    + """
for number in range(int(sys.argv[2])):
    while True:
        try:
            extend(Path(sys.argv[1]), f"graphs/fp16/{number}.onnx")
            break
        except UsageError as error:
            assert "changed meanwhile" in error.what, error
"""
)

APPENDED = (
    EXTEND
    + """
for number in range(int(sys.argv[2])):
    append_receipt(Bundle.open(Path(sys.argv[1])), Receipt(command="parity", seconds=1.0))
"""
)


def test_makers_and_judges_at_once(tmp_path: Path) -> None:
    """Two processes that replace the bundle again and again, two that judge it: no receipt is lost, all are chained."""
    path = begun(tmp_path / "b").path
    codes = (REPEATED, REPEATED, APPENDED, APPENDED)
    commands = [[sys.executable, "-c", code, str(path), "6"] for code in codes]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for command in commands]
    assert [process.wait(120) for process in processes] == [0] * 4
    receipts = read_receipts(path)
    assert [receipt.number for receipt in receipts] == list(range(1, 26))
    assert sorted(receipt.command for receipt in receipts) == ["cast"] * 12 + ["export"] + ["parity"] * 12
    checked = check_bundle(path)
    assert checked.problems == ()
