import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.cli.output import WIDTH, Output, Table, readable_bytes, show_error, start
from fmmt_deploy.errors import ParityError


@dataclass
class Point:
    x: float
    path: Path


def test_table() -> None:
    table = Table("Latency", ("stage", "p50 ms", "note"), [("swin", "12.5", "ok"), ("prepare", "3.25", "–")])
    assert str(table).splitlines() == [
        "Latency",
        "stage    p50 ms  note",
        "swin       12.5  ok",
        "prepare    3.25  –",
    ]
    assert str(Table("", (), [])) == ""
    assert str(Table("Changed", ("name", "size"), [])) == "Changed\nname  size"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.lists(
                st.lists(st.text("ab1", min_size=1, max_size=8), max_size=30).map(" ".join),
                min_size=columns,
                max_size=columns,
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_tables_fit_and_lose_no_word(rows: list[list[str]]) -> None:
    text = str(Table("", (), rows))
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert sorted(text.split()) == sorted(word for row in rows for cell in row for word in cell.split())


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    start()
    Output("parity", as_json=True).result({"worst": Point(float("nan"), Path("a/b")), "rows": ({1: "é"},)}, "text")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": "fmmt.parity/1", "worst": {"x": None, "path": "a/b"}, "rows": [{"1": "é"}]}
    assert err == ""


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output("parity").result({"x": 1}, Table("", ("a",), [("b",)]), "end")
    assert capsys.readouterr().out == "a\nb\n\nend\n"


def test_one_document_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that shows its verdict and then fails leaves one JSON object."""
    start()
    Output("parity", as_json=True).result({"passed": False})
    show_error(ParityError("Too far."), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["schema"] == "fmmt.parity/1"
    assert err == "error: Too far.\n"
    start()
    show_error(ParityError("Too far."), as_json=True)
    assert json.loads(capsys.readouterr().out)["schema"] == "fmmt.error/1"


def test_status_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Output("run").status("Loading")
    Output("run", quiet=True).status("Loading")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Loading\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_progress_only_on_a_terminal(
    terminal: bool, quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Output("run", quiet=quiet).progress("Faces", 3) as advance:
        advance(3)
    assert ("Faces" in stream.getvalue()) == shown
    assert capsys.readouterr().out == ""


def test_readable_bytes() -> None:
    assert [readable_bytes(n) for n in (0, 999, 1000, 1_234_567, 4 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "4.0 TB",
    ]


def test_words_too_long_for_the_page_stay_whole_and_aligned() -> None:
    long = "swin-fp16-b5ec9bad06e16709.engine"
    table = Table("", ("file", "what", "size"), [(long * 2, "many words that can be wrapped well", "21.2 MB")] * 2)
    head, *rows = str(table).splitlines()
    place = head.index("what")
    assert long * 2 in rows[0]
    assert [row[place - 2 : place].strip() for row in (head, *rows)] == [""] * (1 + len(rows))
    assert rows[0][place:].startswith("many words")


def test_nothing_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """File names, data sets and receipts are other people's words."""
    shown = Output("x")
    shown.result({}, Table("", ("a",), [("\x1b[2Jevil\x07\x9b",)]), "one\rtwo\nthree\tfour")
    shown.status("\x1b]0;title\x07")
    text = capsys.readouterr()
    assert text.out.endswith("one\\x0dtwo\nthree\tfour\n")
    assert "\\x1b[2Jevil\\x07\\x9b" in text.out
    assert text.err == "\\x1b]0;title\\x07\n"


def test_no_line_of_an_error_reads_like_the_next_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(ParityError("Too far.", why="it said:\n  fix: nothing", fix="Build it again."))
    assert capsys.readouterr().err.splitlines() == [
        "error: Too far.",
        "  why: it said:",
        "      fix: nothing",
        "  fix: Build it again.",
    ]


def test_columns_stay_aligned_beside_what_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Output("x").result({}, Table("", ("a", "b"), [("\x1b[2J", "x"), ("plain", "y")]))
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row[head.index("b") :] for row in rows] == ["x", "y"]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict", "latin-1"])
def test_any_terminal_can_show_any_name(encoding: str) -> None:
    code = """if True:
        import os
        from fmmt_deploy.cli.output import Output, start
        start()
        name = os.fsdecode(b"caf\\xe9") + " – \U0001f600"
        Output("x", as_json=True).result({"name": name})
        Output("x").result({}, name)
        Output("x").status(name)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    document, _ = json.JSONDecoder().raw_decode(done.stdout.decode(encoding.partition(":")[0]))
    assert document["name"] == "caf\udce9 – \U0001f600"
    assert done.stderr
