"""Watching: every witness comes to its end, and what any of them saw counts."""

import pytest

from fmmt_deploy.benchmark.validity import Seen, Validity, rows_by_reason, together, watched


class Noting:
    """Writes down what it is told."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.told = seen, list[str]()

    def begin(self) -> None:
        self.told.append("begin")

    def look(self) -> None:
        self.told.append("look")

    def end(self) -> Seen:
        self.told.append("end")
        return self.seen


def test_what_any_witness_saw_counts() -> None:
    noisy = Noting(Seen(("too loud",), ("the moon",), {"noise": 0.5}))
    quiet = Noting(Seen(facts={"clock": 2.0}))
    with watched((noisy, quiet)) as work:
        work.look(1)
        assert work.validity.valid  # nothing is known yet
    assert noisy.told == quiet.told == ["begin", "look", "end"]
    assert work.validity == Validity(("too loud",), ("the moon",), {"noise": 0.5, "clock": 2.0})
    assert work.validity.word == "INVALID"
    assert work.validity.to_json() == {
        "valid": False,
        "reasons": ["too loud"],
        "unseen": ["the moon"],
        "facts": {"noise": 0.5, "clock": 2.0},
    }


def test_witnesses_end_after_an_error_too() -> None:
    witness = Noting(Seen())
    with pytest.raises(ZeroDivisionError), watched((witness,)):
        raise ZeroDivisionError
    assert witness.told == ["begin", "end"]


def test_together_every_reason_stands_once() -> None:
    parts = (Validity(("a", "b"), ("x",)), Validity(), Seen(("b", "c"), ("x",)))
    assert together(parts) == Validity(("a", "b", "c"), ("x",))
    assert together(()).word == "VALID"


def test_rows_are_told_by_what_makes_them_invalid() -> None:
    rows = [("ort, alone", ("hot", "late")), ("ort, cached", ()), ("torch, alone", ["hot"]), ("ort, alone", ["hot"])]
    assert rows_by_reason(rows) == {"hot": ("ort, alone", "torch, alone"), "late": ("ort, alone",)}
