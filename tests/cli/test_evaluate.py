"""`fmmt eval`: its document, its receipt, what it says to people, and what it refuses before any work is done."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli.evaluation_tables import parts_from_modes
from fmmt_deploy.cli.output import WIDTH, Table
from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.evaluation.modes import Asked, Draw, modes_from_draws
from fmmt_deploy.evaluation.swaps import SwapMatrix, SwapRow
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.pipeline.run import Prediction
from fmmt_deploy.receipts.kept import read_receipts
from fmmt_deploy.types import FloatArray
from tests.cli.running import exit_code
from tests.golden import GOLDEN
from tests.models import TINY, export_tiny

Capture = pytest.CaptureFixture[str]
DATA = ("--data", str(GOLDEN / "roberta"))
JUDGED = ("--engine", "ort", "--reference", "ort", "--threads", "1", "-q")
"""The same on both sides: quick, and equal bit for bit."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {name: export_tiny(name, folder / name) for name in ("roberta", "unimodal")}


@pytest.fixture
def evaluated(bundles: Mapping[str, Bundle], capsys: Capture) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = exit_code("eval", "-b", str(bundles[name].path), *DATA, *arguments, "--json")
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, document

    return run


Evaluated = Callable[..., tuple[int, dict[str, Any]]]


def test_scores_alone_judge_nothing(evaluated: Evaluated, bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    code, found = evaluated("unimodal", "--engine", "ort")
    assert (code, found["schema"], found["verdict"], found["reference"]) == (0, "fmmt.eval/2", None, None)
    (mode,) = found["modes"]
    judging = ("equivalence", "band", "audit", "reference_evaluation", "spread")
    assert [mode[name] for name in judging] == [None] * 5
    out = tmp_path / "answers.jsonl"
    assert exit_code("run", "-b", str(bundles["unimodal"].path), *DATA, "-o", str(out), "-q") == 0
    logits = [json.loads(line)["logits"] for line in out.read_text().splitlines()]
    labels = np.load(GOLDEN / "roberta" / "expected.npz")["labels"]
    expected = f1_score(labels, np.argmax(logits, axis=1), average="weighted", zero_division=0)
    assert mode["evaluation"]["weighted_f1"] == pytest.approx(expected)


def test_the_document_and_its_receipt(evaluated: Evaluated, bundles: Mapping[str, Bundle]) -> None:
    began = monotonic()
    code, found = evaluated("unimodal", *JUDGED, "--margin", "99")
    elapsed = monotonic() - began
    assert (code, found["verdict"], found["margin"]) == (0, "EQUIVALENT", 0.99)
    assert found["data"] | {"sha256": "", "source": ""} == {
        "source": "", "split": "test", "sha256": "", "utterances": 31, "dialogues": 4,
    }  # fmt: skip
    receipt = read_receipts(bundles["unimodal"].path)[-1]
    assert found["receipt"].endswith("-eval.json")
    assert (receipt.command, receipt.verdict, receipt.exit_code) == ("eval", "EQUIVALENT", 0)
    assert 0 < receipt.seconds <= elapsed + 0.001  # it is rounded
    assert receipt.inputs["data"].sha256 == found["data"]["sha256"]
    assert receipt.result["modes"] == found["modes"]
    assert set(receipt.subjects) >= {"graphs/fp32/unimodal.onnx"}
    assert receipt.settings["margin"].source == "command line"
    assert receipt.settings["swap"].source == "default"


def test_a_negative_verdict_leaves_a_receipt_and_ends_with_5(
    evaluated: Evaluated, bundles: Mapping[str, Bundle]
) -> None:
    code, found = evaluated("unimodal", *JUDGED)
    assert (code, found["verdict"]) == (5, "INCONCLUSIVE")
    receipt = read_receipts(bundles["unimodal"].path)[-1]
    assert (receipt.verdict, receipt.exit_code) == ("INCONCLUSIVE", 5)
    count = len(read_receipts(bundles["unimodal"].path))
    code, found = evaluated("unimodal", *JUDGED, "--no-receipt")
    assert (code, found["receipt"]) == (5, None)
    assert len(read_receipts(bundles["unimodal"].path)) == count


def test_seeds_are_judged_together_with_the_band_and_by_their_mean(
    evaluated: Evaluated, bundles: Mapping[str, Bundle]
) -> None:
    asked = ("--noise", "gumbel", "--seed", "3", "--seeds", "2", "--limit", "2", "--published", "66.73")
    code, found = evaluated("roberta", *JUDGED, *asked, "--margin", "99")
    seeded, averaged = found["modes"]
    assert (code, found["verdict"]) == (0, "EQUIVALENT")
    assert ([seeded["mode"], averaged["mode"]], seeded["seeds"]) == (["seeded", "mean"], [3, 4])
    assert seeded["band"]["values"] == seeded["band"]["engine_values"]
    assert (seeded["band"]["passed"], seeded["band"]["published"]) == (True, pytest.approx(0.6673))
    assert seeded["equivalence"]["draws"] == 2
    assert seeded["spread"]["weighted_f1"]["mean"] == pytest.approx(seeded["evaluation"]["weighted_f1"])
    assert read_receipts(bundles["roberta"].path)[-1].seeds["noise"] == (3, 4)


def test_recorded_noise_is_replayed_on_both_sides(evaluated: Evaluated) -> None:
    file = GOLDEN / "roberta" / "expected.npz"
    _, found = evaluated("roberta", *JUDGED, "--noise", str(file))
    (mode,) = found["modes"]
    assert (mode["mode"], mode["seeds"], mode["equivalence"]["changed"]) == ("replayed", [], 0)
    assert mode["audit"]["gate"]["crossed"] == 0


def test_swap_runs_every_mixture(evaluated: Evaluated, bundles: Mapping[str, Bundle]) -> None:
    _, found = evaluated("roberta", *JUDGED, "--limit", "1", "--swap")
    assert len(found["swaps"]["rows"]) == 8
    assert found["swaps"]["rows"][0]["f1"] == found["modes"][0]["reference_evaluation"]["weighted_f1"]
    assert found["swaps"]["rows"][-1]["f1"] == found["modes"][0]["evaluation"]["weighted_f1"]
    assert read_receipts(bundles["roberta"].path)[-1].inputs["data"].about.endswith(" of 1 dialogue")


@pytest.mark.parametrize("seeds", [(7,), (7, 8)])
def test_a_changed_decision_is_told_with_its_seed_where_there_are_several(seeds: tuple[int, ...]) -> None:
    """Only with the last seed both utterances are decided otherwise."""
    right = np.eye(7, dtype=np.float32)[:2]

    def answers(logits: FloatArray) -> list[Prediction]:
        return [Prediction(name, row, ()) for name, row in zip("ab", logits, strict=True)]

    runs = [right] * (len(seeds) - 1) + [right[::-1]]
    draws = [Draw(no_noise, answers(run), answers(right)) for run in runs]
    modes = modes_from_draws(Asked(("a", "b"), ("d", "e"), (0, 1)), draws, "seeded", seeds, TINY["unimodal"])
    parts = parts_from_modes(modes, None, (), "ort", "torch")
    (table,) = (part for part in parts if isinstance(part, Table) and part.title == "changed decisions")
    seed: tuple[object, ...] = (8,) if len(seeds) > 1 else ()
    assert tuple(table.columns)[:-3] == ("utterance", *(["seed"] if seed else []), "truth")
    assert [tuple(row)[:-3] for row in table.rows] == [("a", *seed, "neutral"), ("b", *seed, "surprise")]


def test_zero_has_one_form_and_one_utterance_is_one() -> None:
    right = [Prediction("a", np.eye(7, dtype=np.float32)[0], ())]
    asked, of = Asked(("a",), ("d",), (0,)), TINY["unimodal"]
    (mode,) = modes_from_draws(asked, [Draw(no_noise, right, right)], "none", (), of)
    rows = tuple(SwapRow({"swin": "engine"}, 0.5, difference, 0, 0.0) for difference in (-1e-17, 0.0, 1e-17, -0.0002))
    swaps = SwapMatrix(rows, {}, {}, {}, {}, "")
    tables = [part for part in parts_from_modes([mode], swaps, (), "ort", "torch") if isinstance(part, Table)]
    (mixtures,) = (table for table in tables if table.title == "every mixture")
    assert [row[-2] for row in mixtures.rows] == ["0.00", "0.00", "0.00", "-0.02"]
    (alone,) = modes_from_draws(asked, [Draw(no_noise, right)], "none", (), of)
    titles = [part.title for part in parts_from_modes([alone], None, (), "ort", None) if isinstance(part, Table)]
    assert "ort: 1 utterance" in titles


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_side_runs_again_beside_the_mixtures(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, seeds: int
) -> None:
    asked = ("--limit", "1", "--noise", "gumbel", "--seeds", str(seeds))
    _, plain = evaluated("roberta", *JUDGED, *asked)
    answers, asked_for = Session.answers, list[str]()

    def counted(self: Session, engines: Engines, *arguments: Any) -> Any:
        asked_for.append(engines.kind)
        return answers(self, engines, *arguments)

    monkeypatch.setattr(Session, "answers", counted)
    _, mixed = evaluated("roberta", *JUDGED, *asked, "--swap")
    assert len(asked_for) == 2 * (seeds - 1)
    assert mixed["modes"] == plain["modes"]


def test_people_read_the_verdict_first_and_nothing_is_too_wide(bundles: Mapping[str, Bundle], capsys: Capture) -> None:
    asked = ("eval", "-b", str(bundles["roberta"].path), *DATA, *JUDGED, "--limit", "2", "--swap")
    assert exit_code(*asked, "--noise", "gumbel", "--seeds", "2") == 5
    shown = capsys.readouterr()
    assert shown.out.startswith("INCONCLUSIVE at a margin of 0.5 points: the engine's weighted F1 is ")
    assert max(map(len, shown.out.splitlines())) <= WIDTH
    titles = [
        *("Over 2 seeds", "With the probabilities averaged", "ort over 2 seeds", "ort against ort"),
        *("how near the edge (seed 0)", "every mixture (seed 0)", "confusion"),
    ]
    assert sorted(titles, key=shown.out.index) == titles
    assert "error: INCONCLUSIVE: this data set can't say" in shown.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--seeds", "2"), "--seeds 2 needs noise that depends on a seed."),
        (("--swap",), "--swap mixes the engine with a reference."),
        (("--margin", "0"), "A margin must be above 0"),
        (("--margin", "0.5"), "--margin judges against a reference."),
        (("--margin", "100"), "found 100"),
        (("--published", "66.73"), "--published is placed in the reference's band"),
        (("--reference", "ort", "--published", "66.73"), "--published is placed in the reference's band"),
        (
            ("--noise", "gumbel", "--seeds", "2", "--published", "66.73"),
            "--published is placed in the reference's band",
        ),
        (("--reference", "ort", "--noise", "gumbel", "--seeds", "2", "--published", "6673"), "found 6673"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    bundles: Mapping[str, Bundle],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    what: str,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("fmmt_deploy.cli.sessions.Session.dataset", never)
    assert exit_code("eval", "-b", str(bundles["unimodal"].path), *DATA, *arguments) == 2
    assert what in capsys.readouterr().err


def test_labels_are_asked_for_before_the_engines(
    bundles: Mapping[str, Bundle], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Session.dataset

    def unlabelled(self: Session, *asked: Any) -> Any:
        found = read(self, *asked)
        first = found.dialogues[0]
        without = replace(first, utterances=tuple(replace(u, label=None) for u in first.utterances))
        return replace(found, dialogues=(without, *found.dialogues[1:]))

    def never(*_: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(Session, "dataset", unlabelled)
    monkeypatch.setattr(Session, "engines", never)
    assert exit_code("eval", "-b", str(bundles["unimodal"].path), *DATA) == 2
    assert "Scores need a label for every utterance" in capsys.readouterr().err
