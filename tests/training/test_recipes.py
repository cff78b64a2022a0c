"""Recipes: what is shipped loads, what is written reads back, and what is wrong is named."""

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.errors import UsageError
from fmmt_deploy.training.limits import RANGES
from fmmt_deploy.training.recipes import (
    MARK,
    effective_from_toml,
    names_of_settings,
    read_effective,
    resumed_effective,
    toml_from_effective,
)
from fmmt_deploy.training.settings import FaceSettings, ModelSettings, RunSettings, Settings, TargetSettings

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "training").glob("*.toml"))
TABLES = {"model": ModelSettings, "faces": FaceSettings, "target": TargetSettings, "run": RunSettings}


def settings_of(text: str = "", *changes: str) -> Settings:
    return effective_from_toml(text, "r.toml", changes).settings


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_reads_back(path: Path) -> None:
    effective = read_effective(path)
    again = effective_from_toml(toml_from_effective(effective), "settings.toml")
    assert again.settings == effective.settings
    given = {f"{table}.{key}" for table, values in tomllib.loads(path.read_text()).items() for key in values}
    told = {name for name, source in effective.sources.items() if source == f"recipe {path.name}"}
    assert given - {"model.swin"} == {name for name in told if not name.startswith("model.swin.")}


def test_there_are_recipes_for_what_is_published() -> None:
    assert {"roberta", "bert", "v-only"} <= {path.stem for path in RECIPES}


def test_published_recipes_say_what_our_description_says() -> None:
    """reference.md, "Training, as published"; its numbers stand here, not our defaults."""
    for name, plm in (("roberta", "roberta"), ("bert", "bert")):
        settings = read_effective(ROOT / "training" / f"{name}.toml").settings
        assert (settings.model.modality, settings.model.plm) == ("T+A+V", plm)
        faces, target = settings.faces, settings.target
        assert (faces.batch_size, faces.learning_rate, faces.erase) == (150, 5e-5, 0.25)
        assert (faces.grey, faces.jitter, faces.jitter_strength, faces.blur) == (0.8, 0.2, 0.4, 0.5)
        assert faces.published_probabilities
        assert faces.epochs >= target.epochs  # each epoch has both phases
        assert (target.batch_size, target.accumulate, target.learning_rate) == (1, 4, 7e-6)
        assert (target.weight_decay, target.warm_up, target.clip, target.jitter) == (0.01, 0.1, 0.8, 0.5)
        assert (target.noise, target.moves_faces, target.class_weights) == ("gumbel", False, "none")
        assert (settings.run.seed, settings.run.precision) == (1111, "fp16")
        assert (settings.model.tau, settings.model.threshold, settings.model.drop_path) == (1.0, 0.2, 0.3)
    vision = read_effective(ROOT / "training" / "v-only.toml").settings
    assert (vision.model.modality, vision.faces.epochs) == ("V", 0)


def test_the_last_source_is_told() -> None:
    effective = effective_from_toml("[target]\nepochs = 3\n", "r.toml", ["target.clip=1", "run.precision=bf16"])
    sources = {name: source for name, _, source in effective.rows()}
    assert sources["target.epochs"] == "recipe r.toml"
    assert sources["target.clip"] == sources["run.precision"] == "--set"
    assert sources["model.swin.depths"] == "default"
    assert set(sources) == set(names_of_settings())
    text = toml_from_effective(effective)
    assert text.startswith(MARK)
    assert "epochs = 3  # recipe r.toml" in text
    assert 'precision = "bf16"  # --set' in text


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("model.swin.depths=[1, 1,2,1]", (1, 1, 2, 1)),
        ("model.modality = T+A+V", "T+A+V"),
        ('model.plm="bert"', "bert"),
        ("target.clip=2", 2.0),
        ("target.moves_faces=true", True),
        ("target.learning_rate=1e-4", 1e-4),
        ("run.seed=0", 0),
    ],
)
def test_set_is_typed_by_the_setting(change: str, value: object) -> None:
    found: object = settings_of("", change)
    for name in change.partition("=")[0].strip().split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_runs_own_settings_keep_their_sources(tmp_path: Path) -> None:
    effective = effective_from_toml("[model]\nthreshold = 0.3\n", "r #1.toml", ["target.epochs=3"])
    (tmp_path / "settings.toml").write_text(toml_from_effective(effective))
    again = resumed_effective(tmp_path / "settings.toml", ["run.workers=0"])
    assert again.settings == replace(effective.settings, run=replace(effective.settings.run, workers=0))
    assert again.sources == {**effective.sources, "run.workers": "--set"}
    assert again.sources["model.threshold"] == "recipe r #1.toml"


def test_later_changes_win() -> None:
    assert settings_of("[target]\nepochs = 1", "target.epochs=2", "target.epochs=3").target.epochs == 3


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("[target]\nepoch = 3", [], "target.epoch.*mean target.epochs"),
        ("[run]\nlearning_rate = 1", [], "mean faces.learning_rate"),
        ("[targets]\nepochs = 3", [], "no setting 'targets'"),
        ("[model.swin]\ndepth = [1]", [], "mean model.swin.depths"),
        ("target = 3", [], "target should be a table, found 3"),
        ("[target\n", [], "not TOML"),
        ("[target]\nepochs = '3'", [], "r.toml: target.epochs should be a whole number, found '3'"),
        ("[target]\nmoves_faces = 1", [], "true or false"),
        ("[target]\nclip = inf", [], "finite"),
        ("[run]\nseed = " + "9" * 5000, [], "r.toml is not TOML"),
        ("[run]\nseed = " + "[" * 5000, [], "r.toml is not TOML"),
        ("", ["run.seed=" + "9" * 5000], "--set: run.seed should be a whole number"),
        ("", ["run.seed=" + "[" * 5000], "--set: run.seed should be a whole number"),
        ("", ["target.epochs=3\nx=4"], "--set: target.epochs should be a whole number"),
        ("", ["target.epochs=1000000000"], "1 to 100000"),
        ("", ["model.swin.depths=[0,1,1,1]"], "above 0 and below 2147483648, found 0"),
        ("", ["epochs"], "table.key=value"),
        ("", ["target.epochs=many"], "--set: target.epochs should be a whole number"),
        ("", ["target.epochs=2.5"], "whole number"),
        ("", ["epochs=2"], "mean faces.epochs"),
        ("", ["zzz=2"], "tables are model"),
        ("", ["run.precision=fp8"], "one of 'fp32', 'fp16', 'bf16'"),
        ("", ["target.clip=0"], "above 0, found 0"),
        ("", ["model.dropout=1"], "0 or more and below 1, found 1"),
        ("", ["faces.batch_size=1"], "2 or more"),
        ("", ["model.heads=5"], "divisor of hidden_size 768"),
        ("", ["model.swin.depths=[1,1]"], "model.swin.heads should be as many as depths"),
        ("[faces]\nepochs = 0", ["model.modality=V", "model.context=past"], "context should be 'dialogue'"),
        ("[faces]\nepochs = 0", ["model.modality=V", "target.moves_faces=true"], "no Swin"),
        ("[faces]\nepochs = 0", ["model.modality=V", "target.plm_learning_rate=0.1"], "no language model"),
        ("", ["model.modality=V"], "with what --set changes: faces.epochs should be 0"),
    ],
)
def test_what_is_wrong_is_named(text: str, changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        effective_from_toml(text, "r.toml", changes)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml can't be read"):
        read_effective(tmp_path / "nothing.toml")


def test_every_number_has_a_range() -> None:
    numbers = {
        f"{table}.{name}"
        for table, kind in TABLES.items()
        for name, hint in get_type_hints(kind).items()
        if hint in (int, float)
    }
    assert numbers == RANGES.keys()
    for name, allowed in RANGES.items():
        table, _, key = name.partition(".")
        assert getattr(getattr(Settings(), table), key) in allowed


def chosen(kind: type) -> st.SearchStrategy[object]:
    """Any settings of a table that are in their ranges."""
    table = next(name for name, each in TABLES.items() if each is kind)
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        hint, allowed = hints[field.name], RANGES.get(f"{table}.{field.name}")
        if allowed is None:
            values[field.name] = st.booleans() if hint is bool else st.sampled_from(get_args(hint))
            continue
        high = min(allowed.high, 1e6) if field.name != "seed" else int(allowed.high)
        if hint is int:
            values[field.name] = st.integers(int(allowed.low) + allowed.above, int(high))
        else:
            values[field.name] = st.floats(
                allowed.low, high, exclude_min=allowed.above, exclude_max=allowed.below, allow_subnormal=False
            )
    return st.builds(kind, **values)


@given(chosen(FaceSettings), chosen(TargetSettings), chosen(RunSettings))
def test_settings_toml_reads_back_as_the_same(faces: FaceSettings, target: TargetSettings, run: RunSettings) -> None:
    effective = replace(effective_from_toml("", "r.toml"), settings=Settings(faces=faces, target=target, run=run))
    assert effective_from_toml(toml_from_effective(effective), "settings.toml").settings == effective.settings
