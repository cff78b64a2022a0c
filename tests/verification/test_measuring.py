"""Measuring from files to labels on a tiny model: what is dropped, what it is watched by, and when it ends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.benchmark.files import offline_figures
from fmmt_deploy.benchmark.published import Published
from fmmt_deploy.benchmark.queries import AllAtOnce, Query, WithCache, queries_of
from fmmt_deploy.benchmark.turns import Effort
from fmmt_deploy.benchmark.validity import Seen, Validity
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.verification import measuring
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.settings import Scenario, settings_for
from tests.benchmark.fake_clock import FakeClock
from tests.benchmark.sides import side

SCENARIOS: tuple[Scenario, ...] = ("single-stream", "offline")
READY = ("ort", "emulated")


class Witness:
    """Sees what it is told to, and how often it looked."""

    def __init__(self, *reasons: str) -> None:
        self.reasons, self.looks = reasons, 0

    def begin(self) -> None: ...

    def look(self) -> None:
        self.looks += 1

    def end(self) -> Seen:
        return Seen(self.reasons)


class Prepared(Context):
    """Has a bundle already."""

    made: Bundle

    def bundle(self) -> Bundle:
        return self.made


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    made = Witness()
    monkeypatch.setattr(measuring, "witnesses_for", lambda _: (made,))
    return made


@pytest.fixture
def context(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Any:
    changes: dict[str, object] = {"published": "ort", "faces": (1,), "offline_dialogues": 1, "rounds": 1}
    made = Prepared(settings_for("tiny", 60, tmp_path, **changes), ready=READY, deadline=monotonic() + 600)
    made.made = tiny_bundle("roberta")
    yield made
    made.close()
    assert not list(tmp_path.iterdir())  # faces are gone


def measured(context: Context, scenario: Scenario) -> dict[str, Any]:
    return dict(measuring.files_to_labels(context, 1, scenario))


def sides_of(result: dict[str, Any]) -> list[str]:
    return [f"{row['engine']} {row['way']}" for row in result["rows"]]


def test_every_engine_is_measured_beside_the_published_loop(context: Context, witness: Witness) -> None:
    single, offline = (measured(context, scenario) for scenario in SCENARIOS)
    assert sides_of(single) == ["ort published", "ort alone", "ort cached", "emulated alone", "emulated cached"]
    assert sides_of(offline) == ["ort published", "ort batched", "emulated batched"]
    assert (single["baseline"], offline["baseline"]) == ("ort published", "ort published")
    assert (single["dropped"], offline["dropped"]) == ({}, {})
    assert witness.looks >= 2 * (5 + 3)  # two windows a side
    assert "×" in single["summary"]
    assert "/s" in offline["summary"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_disturbs_the_machine_makes_every_figure_invalid(
    context: Context, witness: Witness, scenario: Scenario
) -> None:
    witness.reasons = ("Other processes took 50% of the processors; the limit is 5%.",)
    result = measured(context, scenario)
    assert result["summary"].startswith(f"0 of {len(result['rows'])} figures VALID; ")
    assert all(not row["valid"] and witness.reasons[0] in row["reasons"] for row in result["rows"])
    assert result["validity"]["reasons"] == list(witness.reasons)


def test_the_gpu_is_watched_where_something_computes_there(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[list[str]]()

    def witnesses(choices: Sequence[Choice]) -> tuple[()]:
        asked.append([choice.name for choice in choices])
        return ()

    monkeypatch.setattr(measuring, "witnesses_for", witnesses)
    measured(context, "offline")
    assert asked == [["ort", "ort", "emulated"]]  # the published loop's engine, too


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(
    ("scenario", "kind", "dropped"), [("single-stream", WithCache, "cached"), ("offline", AllAtOnce, "batched")]
)
def test_one_that_fails_is_named_and_the_others_are_measured(
    context: Context, monkeypatch: pytest.MonkeyPatch, scenario: Scenario, kind: type[Any], dropped: str
) -> None:
    right = kind.answer

    def failing(self: Any, queries: Sequence[Query]) -> None:
        if self._pipeline.engines.kind == "emulated":
            raise FmmtError("The model answered NaN.")
        right(self, queries)

    monkeypatch.setattr(kind, "answer", failing)
    result = measured(context, scenario)
    assert result["dropped"] == {f"emulated {dropped}": "The model answered NaN."}
    assert f"emulated {dropped}" not in sides_of(result)
    assert f"ort {dropped}" in sides_of(result)


@pytest.mark.usefixtures("witness")
def test_where_the_published_loop_fails_nothing_is_a_baseline(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Any, __: Sequence[Query]) -> None:
        raise FmmtError("out of memory")

    monkeypatch.setattr(Published, "answer", failing)
    result = measured(context, "offline")
    assert (result["baseline"], result["dropped"]) == ("", {"ort published": "out of memory"})
    assert [row["ratio"] for row in result["rows"]] == [None, None]


@pytest.mark.usefixtures("witness")
def test_it_is_told_which_engine_is_asked(context: Context) -> None:
    """When it is opened, before every window, and alone: who is asked and never answers is the one told last."""
    told = list[str]()
    context.asks = told.append
    measured(context, "offline")
    assert told[:2] == list(READY)
    assert list(dict.fromkeys(told[2:])) == list(READY)
    assert len(told) >= 2 + 2 * 3  # two windows of the published loop and of each
    told.clear()
    assert len(measuring.stages(context)["rows"]) == len(told)  # type: ignore[arg-type]  # a plain value
    assert set(told) == set(READY)


@pytest.mark.usefixtures("witness")
def test_an_engine_that_can_t_be_opened_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = context.engines

    def refused(name: str) -> Any:
        if name == "ort":
            raise FmmtError("There is no provider.")
        return opening(name)

    monkeypatch.setattr(context, "engines", refused)
    result = measured(context, "offline")
    assert (result["dropped"], sides_of(result)) == ({"ort": "There is no provider."}, ["emulated batched"])
    assert not result["baseline"].endswith("published")


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_time_it_ends_and_says_who_had_none(context: Context, scenario: Scenario) -> None:
    context.deadline = monotonic() - 1
    result = measured(context, scenario)
    assert (result["rows"], result["baseline"], result["summary"]) == ([], "", "nothing could be measured")
    assert set(result["dropped"].values()) == {"There was no time for it."}


@pytest.mark.usefixtures("witness")
def test_without_any_engine_there_is_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> Any:
        raise FmmtError(f"no {name}")

    monkeypatch.setattr(context, "engines", refused)
    result = measured(context, "offline")
    assert (result["rows"], result["dropped"]) == ([], {"ort": "no ort", "emulated": "no emulated"})


def test_turns_are_over_before_the_step_is(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100 s left, within 90: what then still goes on has the rest."""
    asked, now = list[Effort](), 1000.0

    def figures(_: object, __: object, effort: Effort) -> tuple[()]:
        asked.append(effort)
        return ()

    monkeypatch.setattr(measuring, "FIGURES", {"offline": figures})
    monkeypatch.setattr(measuring, "perf_counter", lambda: now)
    context.deadline = monotonic() + 100
    measured(context, "offline")
    (effort,) = asked
    assert effort.haste is not None
    assert effort.haste.deadline - now == pytest.approx(90, abs=2)


def test_a_figure_counts_as_valid_with_its_ratio(tmp_path: Path) -> None:
    """Three rounds are enough for a throughput, not for an interval; the baseline has no ratio."""
    clock, queries = FakeClock(), queries_of(meld_shaped(PRESETS["tiny"], tmp_path, 1, 1))
    sides = [side(clock, "torch", 0.5, "published"), side(clock, "ort", 0.125, "batched")]
    few, enough = (offline_figures(sides, queries, Effort(rounds, clock=clock)) for rounds in (3, 6))
    assert measuring._summary(few, Validity()) == "1 of 2 figures VALID; ort 8.0/s, 4.0×"
    assert measuring._summary(enough, Validity()) == "2 of 2 figures VALID; ort 8.0/s, 4.0×"
    assert measuring._summary(enough, Validity(("busy",))).startswith("0 of 2 ")


def test_warming_up_asks_what_will_be_asked(context: Context) -> None:
    result = measuring.warm_up(context, "ort")
    utterances = 9  # of one dialogue; each without and with the cache, and all at once
    assert result["answered"] == 2 * utterances + 1
    assert str(result["summary"]).startswith("19 of 19 questions in ")


def test_warming_up_ends_when_half_its_time_is_over(context: Context) -> None:
    context.deadline = monotonic()
    assert measuring.warm_up(context, "ort")["answered"] == 1
