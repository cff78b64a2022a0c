"""What a search found, as a recipe: the numbers, in the units that it promises, and back from its file."""

from collections.abc import Callable
from math import inf

import pytest

from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.recipes import recipe_from_toml, toml_from_recipe
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.selection.evidence import recipe_from_found
from fmmt_deploy.selection.found import Attempt, Choice, Found
from fmmt_deploy.selection.layers import Cost
from fmmt_deploy.selection.progress_file import Verdict
from fmmt_deploy.selection.rules import EquivalenceRule
from tests.selection.stand_ins import planted_judgement

RULE = EquivalenceRule(max_changed_share=0.02, max_f1_drop=0.005)
KEPT = Choice("int8", ("plm.encoder.layer.0/*",), Cost(0.25, 1000), 0.2)
HALF, WIDE = Choice("fp16", (), Cost(), 0.25), Choice("fp32", (), Cost(), 0.1)


def test_a_recipe_with_evidence(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle("roberta")
    judgement = planted_judgement(("swin", "plm"), 0.004)
    attempts = (
        Attempt({"plm": KEPT}, Verdict(planted_judgement(("plm",), inf)), ("logits are NaN",)),
        Attempt({"swin": HALF}, Verdict(None, "overflows"), ("overflows",)),
        Attempt({"swin": HALF, "plm": KEPT}, Verdict(judgement), ()),
    )
    found = Found({"swin": HALF, "plm": KEPT, "fusion": WIDE}, judgement, RULE, 0.55, attempts, (), True)
    settings = CalibrationSettings(method="mse", dialogues=None)
    recipe = recipe_from_found(found, settings, bundle, "meld (val)", "d1", "r.toml")
    assert recipe.precision == {"swin": "fp16", "plm": "int8", "fusion": "fp32"}
    assert recipe.keep == {"plm": ("plm.encoder.layer.0/*",)}
    assert recipe.calibration == settings
    evidence = recipe.evidence
    assert evidence is not None
    assert (evidence.utterances, evidence.data, evidence.data_digest) == (1000, "meld (val)", "d1")
    assert evidence.bundle_digest == hash_file(bundle.path / "manifest.json")
    assert evidence.agreement == pytest.approx(0.996)
    assert evidence.f1_points == pytest.approx(-0.4)
    assert evidence.f1_interval_points == pytest.approx((-1.8, 1.0))
    assert "at most 0.5 points" in evidence.rule
    assert "98.00% of decisions" in evidence.rule
    assert "not at the ends of their intervals" in evidence.rule
    assert [t.precision for t in evidence.tried] == ["plm=int8", "swin=fp16", "swin=fp16,plm=int8"]
    assert [t.kept_share for t in evidence.tried] == [0.25, 0, 0.25]
    assert [t.sqnr_db is None for t in evidence.tried] == [True, True, False]
    assert [bool(t.problems) for t in evidence.tried] == [True, True, False]
    assert "torch" in evidence.versions
    assert recipe_from_toml(toml_from_recipe(recipe), "r.toml") == recipe


def test_where_nothing_but_float32_holds(tiny_bundle: Callable[[str], Bundle]) -> None:
    found = Found({"plm": WIDE}, None, RULE, 1.0, (), (), False)
    recipe = recipe_from_found(found, CalibrationSettings(), tiny_bundle("roberta"), "d", "x", "r.toml")
    assert recipe.evidence is not None
    assert (recipe.evidence.agreement, recipe.evidence.f1_points, recipe.evidence.sqnr_db) == (1.0, None, None)
    assert "nothing about F1" in recipe.evidence.rule
    assert recipe_from_toml(toml_from_recipe(recipe), "r.toml") == recipe
