"""The search, on noise that is planted layer by layer: so what it must find is known before."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.selection.found import Found
from fmmt_deploy.selection.judge import judge_from_bundle
from fmmt_deploy.selection.layers import layered_graph
from fmmt_deploy.selection.making import emulated_maker
from fmmt_deploy.selection.progress_file import ProgressFile
from fmmt_deploy.selection.rules import EquivalenceRule
from fmmt_deploy.selection.search import find_precisions
from fmmt_deploy.types import GraphName
from tests.pipeline.conversations import conversations, dataset
from tests.selection.stand_ins import Planted

Bundles = Callable[[str], Bundle]
GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion")
RULE = EquivalenceRule(max_changed_share=0.02, max_f1_drop=0.005)
ALL: tuple[Precision, ...] = ("int8", "fp16")
BOTH: tuple[Precision, ...] = ("fp8", "int8")
BLOCK = "backbone.layers.0.blocks.0"
LAYER = "plm.encoder.layer.1"


@pytest.fixture(scope="module")
def files(tiny_bundle: Bundles) -> dict[GraphName, Path]:
    return {graph: tiny_bundle("roberta").graph(graph) for graph in GRAPHS}


@pytest.fixture(scope="module")
def plant(files: Mapping[GraphName, Path]) -> Callable[..., Planted]:
    layers = {(g, p): layered_graph(g, path, p) for g, path in files.items() for p in ("fp8", *ALL)}

    def planted(noise: Mapping[tuple[Precision, str], float], **settings: object) -> Planted:
        return Planted(layers, noise, **settings)  # type: ignore[arg-type]

    return planted


def search(
    files: Mapping[GraphName, Path], planted: Planted, allowed: Sequence[Precision] = ALL, **settings: object
) -> Found:
    each = dict.fromkeys(GRAPHS, allowed)
    return find_precisions(files, each, planted.judge, planted.make, RULE, **settings)  # type: ignore[arg-type]


def precisions(found: Found) -> list[str]:
    return [choice.precision for choice in found.choices.values()]


def test_what_holds_is_taken_whole(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    planted = plant({}, background=1e-5)
    found = search(files, planted)
    assert precisions(found) == ["int8"] * 3
    assert all(choice.keep == () and choice.cost.flops_share == 0 for choice in found.choices.values())
    assert len(planted.judged) == 4  # each by itself, then all: no layer was looked at
    assert found.judgement is not None
    assert found.judgement.graphs == GRAPHS
    assert found.relative_time < 0.5
    assert not found.layers


def test_the_worst_layers_are_kept_back_one_by_one(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    """Two blocks of the Swin are too much together with a third that need not be kept back."""
    worst, second, third = BLOCK, "backbone.layers.2.blocks.1", "backbone.layers.3.blocks.0"
    noise = {("int8", worst): 0.02, ("int8", second): 0.01, ("int8", third): 0.001}
    planted = plant(noise, background=1e-6)
    found = search(files, planted)
    assert precisions(found) == ["int8"] * 3
    assert set(found.choices["swin"].keep) == {f"{worst}/*", f"{second}/*"}
    assert found.choices["plm"].keep == ()
    tried = [set(a.graphs["swin"].keep) for a in found.attempts if list(a.graphs) == ["swin"]]
    assert tried[0] == set()
    assert {f"{worst}/*"} in tried  # one alone was tried, and did not hold
    assert [a.holds for a in found.attempts if a.graphs.keys() == {"swin"}] == [False, True, False, True]
    noisiest = sorted(found.layers, key=lambda n: n.sqnr_db)[:2]
    assert [n.layer for n in noisiest] == [worst, second]
    assert [n.sqnr_db for n in noisiest] == pytest.approx([-10 * math.log10(0.02), 20])
    cost = found.choices["swin"].cost
    kept = [n.cost for n in found.layers if n.layer in (worst, second)]
    assert cost.flops_share == pytest.approx(sum(c.flops_share for c in kept))
    assert cost.weight_bytes == sum(c.weight_bytes for c in kept)


def test_too_much_kept_back_gives_the_precision_up(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    planted = plant({}, background=0.002)  # int8 and fp16 likewise, so everything fails but plm with its few layers
    found = search(files, planted, max_kept_share=0.05)
    assert found.choices["swin"].precision == "fp32"
    assert found.choices["swin"].keep == ()
    for attempt in found.attempts:
        assert all(choice.cost.flops_share <= 0.05 for choice in attempt.graphs.values())
    failed = [dict(a.graphs).items() for a in found.attempts if len(a.graphs) == 1 and not a.holds]
    together = [dict(a.graphs).items() for a in found.attempts if len(a.graphs) > 1]
    assert failed
    assert not [all_ for all_ in together if any(alone <= all_ for alone in failed)]  # known to fail


def test_the_next_precision_is_wider(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    """One layer of the text encoder, half of its work, makes infinite noise in 8 bits and none in 16."""
    found = search(files, plant({("int8", LAYER): math.inf}))
    assert precisions(found) == ["int8", "fp16", "int8"]
    assert [n.sqnr_db for n in found.layers if n.layer == LAYER] == [-math.inf]


def test_a_whole_graph_comes_before_one_as_fast_with_something_kept_back(
    files: dict[GraphName, Path], plant: Callable[..., Planted]
) -> None:
    """fp8 and int8 take as long; fp8 must keep a block back, int8 nothing."""
    found = search(files, plant({("fp8", BLOCK): 0.1}), BOTH)
    assert precisions(found) == ["int8", "fp8", "fp8"]
    assert found.choices["swin"].keep == ()
    worse = search(files, plant({("fp8", BLOCK): 0.1, ("int8", BLOCK): math.inf}), BOTH)
    assert precisions(worse) == ["fp8"] * 3  # of both with it kept back, the first
    assert worse.choices["swin"].keep == (f"{BLOCK}/*",)


def test_a_weight_that_overflows_does_not_hold(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    found = search(files, plant({}, overflows=("fp16", LAYER)), ("fp16",))
    assert precisions(found) == ["fp16", "fp32", "fp16"]
    problems = [a.problems for a in found.attempts if not a.holds]
    assert problems
    assert all("overflows fp16" in problem for (problem,) in problems)


def test_together_the_noisiest_for_its_gain_steps_back(
    files: dict[GraphName, Path], plant: Callable[..., Planted]
) -> None:
    """Each holds by itself with 0.4 points lost, all together lose 0.9."""
    noise = {("int8", BLOCK): 0.004, ("int8", LAYER): 0.004, ("int8", "CrossModalTrans_TA.layers.0"): 0.001}
    found = search(files, plant(noise))
    alone = {g: a.graphs[g] for a in found.attempts for g in a.graphs if len(a.graphs) == 1 and a.holds}
    time32 = search(files, plant({}), ()).choices
    assert time32["swin"].relative_time - alone["swin"].relative_time > 2 * (
        time32["plm"].relative_time - alone["plm"].relative_time
    )
    assert precisions(found) == ["int8", "fp16", "int8"]  # it gains less, for as much noise
    assert found.judgement is not None
    assert found.judgement.sqnr_db == pytest.approx(-10 * math.log10(0.005))
    slow = search(files, plant(noise), speeds={("swin", "int8"): 1.001, ("swin", "fp16"): 1.0005})
    assert precisions(slow) == ["int8"] * 3
    assert slow.choices["swin"].keep == (f"{BLOCK}/*",)  # as much as may be kept back, before the next precision
    assert [a.holds for a in slow.attempts if len(a.graphs) == 3] == [False, True]


def test_a_measured_speed_counts_before_the_rule(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    """int8 was measured slower than float32, and float16 at three times its speed."""
    speeds = {("swin", "int8"): 0.8, ("swin", "fp16"): 3.0}
    found = search(files, plant({}), speeds=speeds)
    assert precisions(found) == ["fp16", "int8", "int8"]
    whole = search(files, plant({}), ("fp16",), speeds={})
    time32 = search(files, plant({}), ()).choices["swin"].relative_time
    assert found.choices["swin"].relative_time == pytest.approx(time32 / 3)
    assert whole.relative_time == pytest.approx(0.5, rel=0.1)


def test_nothing_allowed_is_float32(files: dict[GraphName, Path], plant: Callable[..., Planted]) -> None:
    planted = plant({})
    found = search(files, planted, ("fp32",))
    assert (precisions(found), found.judgement, planted.judged) == (["fp32"] * 3, None, [])
    assert found.relative_time == pytest.approx(1)


@pytest.mark.parametrize("after", [0, 1, 7, 15])
def test_a_killed_search_goes_on_where_it_was(
    files: dict[GraphName, Path], plant: Callable[..., Planted], tmp_path: Path, after: int
) -> None:
    noise = {("int8", BLOCK): 0.02, ("int8", LAYER): math.inf, ("fp16", LAYER): 1e-4}
    expected = search(files, plant(noise))
    path = tmp_path / "state.jsonl"
    killed = plant(noise, killed_after=after)
    with pytest.raises(KeyboardInterrupt):
        search(files, killed, progress=ProgressFile(path, "these"))
    progress = ProgressFile(path, "these")
    assert len(progress) == after
    rest = plant(noise)
    found = search(files, rest, progress=progress)
    uninterrupted = plant(noise)
    search(files, uninterrupted)
    assert killed.judged + rest.judged == uninterrupted.judged
    assert repr(found) == repr(expected)  # NaN is not equal to itself
    again = plant(noise)
    assert repr(search(files, again, progress=ProgressFile(path, "these"))) == repr(expected)
    assert again.judged == []
    assert all(json.loads(line)["schema"] == "fmmt.search/1" for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def real(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    bundle = tiny_bundle("roberta")
    data = dataset(conversations(tmp_path_factory.mktemp("faces")))
    with open_engines(bundle, "torch", threads=1) as reference:
        judge = judge_from_bundle(bundle, data, reference)
        maker = emulated_maker(bundle, 1, lambda *_: pytest.fail("nothing here has 8 bits"))
        files = {graph: bundle.graph(graph) for graph in GRAPHS}
        rule = EquivalenceRule(0.2, 0.2)
        yield find_precisions(files, {"plm": ["bf16", "fp16"], "fusion": ["fp16"]}, judge.judge, maker, rule)


def test_real_graphs(real: Found) -> None:
    assert precisions(real) == ["fp32", "bf16", "fp16"]
    assert real.judgement is not None
    assert real.judgement.graphs == ("plm", "fusion")
    assert 20 < real.judgement.sqnr_db < 80
