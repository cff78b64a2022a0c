"""Recipes: what is read, written and refused; and every one that is shipped, against real models."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.manifest import PRECISIONS
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.formats import FORMATS
from fmmt_deploy.calibration.recipes import (
    Evidence,
    Recipe,
    Tried,
    check_patterns,
    read_recipe,
    recipe_from_toml,
    toml_from_recipe,
)
from fmmt_deploy.calibration.settings import METHOD_CHOICES, CalibrationSettings
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GRAPHS
from tests.models import TINY

Bundles = Callable[[str], Bundle]
FOLDER = Path(__file__).parents[2] / "calibration"
SHIPPED = ("cpu", "gpu-fp8", "gpu-int8")

MINIMAL = '[precision]\nplm = "int8"\n'


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes(tiny_bundle: Bundles, name: str, model: str) -> None:
    """Each has something to do for every kind of model, and every pattern in it fits."""
    architecture = TINY[model]
    recipe = read_recipe(FOLDER / f"{name}.toml").of(architecture)
    precisions = recipe.precisions(architecture)
    eight = [graph for graph, precision in precisions.items() if FORMATS[precision].operands is not None]
    assert eight
    bundle = tiny_bundle(model)
    products = {
        graph: [s.node for s in sites_of(GraphView(onnx.load(bundle.graph(graph), load_external_data=False)))]
        for graph in eight
    }
    assert all(products.values())
    check_patterns(recipe, products)
    around = {FORMATS[precisions[graph]].around for graph in eight}
    assert around == ({"fp32"} if name == "cpu" else {"fp16"})
    assert recipe.calibration.dialogues == 64
    assert recipe.evidence is None
    head = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n[")[0]
    assert head.count("\n#") >= 2, "a recipe says why at its top"


def test_what_is_left_out_has_its_default() -> None:
    recipe = recipe_from_toml(MINIMAL, "r.toml")
    assert recipe == Recipe("r.toml", {"plm": "int8"})
    assert recipe.precisions(TINY["roberta"]) == {"swin": "fp32", "plm": "int8", "fusion": "fp32"}
    assert recipe_from_toml(MINIMAL + "[calibration]\ndialogues = 0", "r").calibration.dialogues is None


def test_only_what_a_model_has_counts() -> None:
    text = (
        '[precision]\nplm = "int8"\nunimodal = "fp16"\n[calibration]\nsmooth = ["plm", "unimodal"]\n[keep]\nplm=["a"]'
    )
    recipe = recipe_from_toml(text, "r.toml")
    vision = recipe.of(TINY["unimodal"])
    assert (vision.precision, vision.keep, vision.calibration.smooth) == ({"unimodal": "fp16"}, {}, ("unimodal",))
    assert recipe.of(TINY["bert"]).keep == {"plm": ("a",)}
    with pytest.raises(UsageError, match="is about plm; this model has unimodal"):
        recipe_from_toml(MINIMAL, "r.toml").of(TINY["unimodal"])


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
GRAPH = st.sampled_from(GRAPHS)
TRIED = st.builds(
    Tried,
    TEXTS,
    NUMBERS,
    st.none() | NUMBERS,
    st.none() | NUMBERS,
    st.none() | NUMBERS,
    st.lists(TEXTS, max_size=3).map(tuple),
)
EVIDENCE = st.builds(
    Evidence,
    *[TEXTS] * 4,
    st.integers(0, 10**6),
    TEXTS,
    NUMBERS,
    NUMBERS,
    st.none() | NUMBERS,
    st.none() | NUMBERS,
    st.lists(NUMBERS, max_size=2).map(tuple),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.lists(TRIED, max_size=2).map(tuple),
)
SETTINGS = st.builds(
    CalibrationSettings,
    st.sampled_from(METHOD_CHOICES),
    st.floats(0, 100, exclude_min=True),
    st.lists(GRAPH, unique=True).map(tuple),
    st.none() | st.integers(1, 10**6),
    st.integers(0, 2**31),
)


@settings(max_examples=50)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    precision = data.draw(st.dictionaries(GRAPH, st.sampled_from(PRECISIONS), min_size=1))
    low = [graph for graph, each in precision.items() if each != "fp32"]
    keep = data.draw(st.dictionaries(st.sampled_from(low), st.lists(TEXTS, max_size=3).map(tuple))) if low else {}
    recipe = Recipe("r.toml", precision, data.draw(SETTINGS), keep, data.draw(st.none() | EVIDENCE))
    text = toml_from_recipe(recipe, comment="two\nlines")
    assert text.startswith("# two\n# lines\n\n[precision]\n")
    assert recipe_from_toml(text, "r.toml") == recipe
    assert tomllib.loads(text)["precision"] == precision


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("precision = int8", "is not TOML"),
        ("", "precision should be present, found nothing"),
        ("[precision]", "precision should be of at least one graph"),
        ('[precision]\nplm = "int4"', "precision.plm should be one of 'fp32'"),
        ('[precision]\nbert = "int8"', "a name in precision should be one of 'swin'"),
        (MINIMAL + "[tuning]\nx = 1", "tuning should be absent"),
        (MINIMAL + '[calibration]\nmethod = "magic"', "calibration.method should be one of"),
        (MINIMAL + "[calibration]\nmethods = 1", "calibration.methods should be absent"),
        (MINIMAL + "[calibration]\nsmooth = true", "calibration.smooth should be a list"),
        (MINIMAL + '[calibration]\ndialogues = "64"', "calibration.dialogues should be a whole number"),
        (MINIMAL + "[calibration]\ndialogues = -1", "calibration.dialogues should be 0 or more"),
        (MINIMAL + "[calibration]\nseed = -1", "calibration.seed should be 0 or more"),
        (MINIMAL + "[calibration]\npercentile = 100.5", "calibration.percentile should be above 0 and at most 100"),
        (MINIMAL + "[calibration]\npercentile = nan", "calibration.percentile should be a finite number"),
        (MINIMAL + '[keep]\nplm = "a"', "keep.plm should be a list"),
        (MINIMAL + '[keep]\nswin = ["a"]', "keep.swin should be about a graph in a lower precision"),
        (MINIMAL + "[evidence]\ndata = 1", "evidence"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_from_toml(text, "r.toml")
    assert "r.toml" in caught.value.what
    assert words in caught.value.what
    assert "calibration/README.md" in caught.value.fix


def test_files_that_can_t_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("binary.toml", "none.toml"):
        with pytest.raises(UsageError, match=r"can't be read"):
            read_recipe(tmp_path / name)


def test_patterns_that_fit_nothing() -> None:
    recipe = recipe_from_toml(MINIMAL + '[keep]\nplm = ["plm.encoder.layer.0/*", "decoder/*"]', "r.toml")
    names = {"plm": ["plm.encoder.layer.0/Gemm", "plm.encoder.layer.1/Gemm"]}
    with pytest.raises(UsageError, match=r"keep.plm has 'decoder/\*', which fits nothing of plm that int8") as caught:
        check_patterns(recipe, names)  # type: ignore[arg-type]
    assert "'plm.encoder.layer.0/Gemm'" in caught.value.why
    check_patterns(recipe, {"plm": [*names["plm"], "decoder/Gemm"]})
