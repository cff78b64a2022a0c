"""Profiles: what a file may say, what it means for a graph's inputs, and the recipes that are shipped."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.profiles import (
    DIMENSIONS,
    Profile,
    Profiles,
    Range,
    default_profiles,
    profiles_from_toml,
    read_profiles,
    shapes_of,
    toml_from_profiles,
)
from fmmt_deploy.errors import BundleError, UsageError
from fmmt_deploy.reference.presets import PRESETS
from tests.models import TINY

REPOSITORY = Path(__file__).parents[3]
RECIPES = sorted((REPOSITORY / "engines").glob("*.toml"))
MODEL = TINY["roberta"]

GOOD = """
[[swin]]
faces = [1, 1, 1]
[[swin]]
faces = [2, 8, 64]
[[plm]]
dialogues = [1, 1, 1]
tokens = [2, 128, 512]
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(GOOD)
    profiles = read_profiles(path, MODEL)
    assert profiles.of("swin") == ({"faces": Range(1, 1, 1)}, {"faces": Range(2, 8, 64)})
    assert profiles.of("plm") == ({"dialogues": Range(1, 1, 1), "tokens": Range(2, 128, 512)},)
    with pytest.raises(UsageError, match="has no profile for fusion"):
        profiles.of("fusion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[swim]]\nfaces = [1, 1, 1]", "swim is no graph"),
        ("[swin]\nfaces = [1, 1, 1]", r"swin should be one table or more, each begun by \[\[swin\]\]"),
        ("swin = 3", "swin should be one table or more"),
        ("swin = []", "swin should be one table or more"),
        ("", "the whole file should have tables"),
        ("[[swin]]", r"swin\[0\]\.faces is missing"),
        ("[[swin]]\nfaces = [1, 1, 1]\n[[swin]]\nface = [1, 1, 1]", r"swin\[1\]\.face is no dimension of swin: faces"),
        ("[[swin]]\nfaces = [0, 1, 1]", r"swin\[0\]\.faces should be 1 ≤ smallest"),
        ("[[swin]]\nfaces = [1, 9, 8]", "usual ≤ largest, found"),
        ("[[swin]]\nfaces = [2, 1, 8]", "smallest ≤ usual"),
        ("[[swin]]\nfaces = [1, 8, 2147483648]", "largest"),
        ("[[swin]]\nfaces = [1, 8]", "should be three whole numbers"),
        ("[[swin]]\nfaces = 8", "should be three whole numbers"),
        ("[[swin]]\nfaces = [1, 8, 8.0]", "should be three whole numbers"),
        ("[[swin]]\nfaces = [true, 8, 8]", "should be three whole numbers"),
        ("[[plm]]\ndialogues = [1, 1, 1]\ntokens = [2, 128, 513]", "tokens is at most 512: the model has no positions"),
        ("[[unimodal]]\nutterances = [1, 8, 32]\nvision = [1, 2, 3]", "can't vary: audio and vision keep their padded"),
        ("[[fusion]]\naudio = [1, 2, 3]", r"fusion\[0\]\.audio can't vary"),
        ("[[swin]\n", "is not TOML"),
    ],
)
def test_what_a_file_may_not_say(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        profiles_from_toml(text, MODEL, "mine.toml")
    assert "mine.toml" in caught.value.what


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        read_profiles(tmp_path / "none.toml", MODEL)
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="can't be read"):
        read_profiles(tmp_path / "latin.toml", MODEL)


def test_the_longest_text_is_the_model_s() -> None:
    assert MODEL.plm is not None
    short = replace(MODEL, plm=replace(MODEL.plm, max_tokens=100))
    assert default_profiles(short).of("plm")[0]["tokens"] == Range(2, 100, 100)
    with pytest.raises(UsageError, match="at most 100"):
        profiles_from_toml(GOOD, short, "p")


@st.composite
def all_profiles(draw: st.DrawFn) -> Profiles:
    def sizes(largest: int) -> st.SearchStrategy[Range]:
        return st.lists(st.integers(1, largest), min_size=3, max_size=3).map(lambda n: Range(*sorted(n)))

    graphs = {
        graph: tuple({name: draw(sizes(512)) for name in DIMENSIONS[graph]} for _ in range(draw(st.integers(1, 3))))
        for graph in graphs_of(MODEL)
    }
    return Profiles("p", graphs)


@given(all_profiles())
def test_a_written_file_reads_back_the_same(profiles: Profiles) -> None:
    assert profiles_from_toml(toml_from_profiles(profiles, "made\nup"), MODEL, "p") == profiles


@pytest.mark.parametrize("model", TINY)
def test_the_dimensions_are_the_graphs_own(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    """Against the ONNX files, read by `onnx` itself."""
    bundle = tiny_bundle(model)
    for graph in graphs_of(TINY[model]):
        inputs = onnx.load(bundle.graph(graph), load_external_data=False).graph.input
        named = {axis.dim_param for value in inputs for axis in value.type.tensor_type.shape.dim} - {""}
        assert named == set(DIMENSIONS[graph])


def test_shapes(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle("roberta")
    shapes = shapes_of(bundle.graph("swin"), {"faces": Range(1, 8, 64)})
    assert shapes == {"faces": ((1, 224, 224, 3), (8, 224, 224, 3), (64, 224, 224, 3))}
    profile = default_profiles(MODEL).of("fusion")[0]
    found = shapes_of(bundle.graph("fusion"), profile)
    assert found["audio"] == tuple((n, 14, 24) for n in (1, 8, 32))
    assert found["token_states"] == ((1, 2, 48), (1, 128, 48), (32, 512, 48))
    assert found["face_logits"] == ((1, 7), (64, 7), (32 * 6, 7))
    with pytest.raises(BundleError, match="has a dimension 'faces' of faces"):
        shapes_of(bundle.graph("swin"), {"tokens": Range(1, 1, 1)})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("architecture", [PRESETS["full"], *TINY.values()], ids=["full", *TINY])
def test_recipes(recipe: Path, architecture: Architecture) -> None:
    """Each is for every kind of model, and no size between the smallest and the largest is left out."""
    profiles = read_profiles(recipe, architecture)
    assert profiles.graphs.keys() == set(graphs_of(architecture))
    for graph, each in profiles.graphs.items():
        largest = {name: max(profile[name].max for profile in each) for name in DIMENSIONS[graph]}
        steps = {name: sorted({n for p in each for n in (p[name].min, p[name].max)}) for name in DIMENSIONS[graph]}
        main, *others = DIMENSIONS[graph]
        for size in range(1, largest[main] + 1):
            for corner in product(*(steps[name] for name in others)):
                sizes = {main: size, **dict(zip(others, corner, strict=True))}
                if any(sizes[name] > _most(each, main, size, name) for name in others):
                    continue
                fits = [p for p in each if all(sizes[name] in p[name] for name in sizes)]
                assert fits, f"{recipe.name}: {graph} has no profile for {sizes}"
    assert recipe.read_text().startswith("# "), "a recipe says why it is so"


def _most(profiles: tuple[Profile, ...], main: str, size: int, name: str) -> int:
    """The largest size of a dimension in any profile that takes this size of the main one."""
    return max((p[name].max for p in profiles if size in p[main]), default=2**31)


def test_the_default_recipe_is_the_default() -> None:
    full = PRESETS["full"]
    assert read_profiles(REPOSITORY / "engines" / "default.toml", full).graphs == default_profiles(full).graphs
