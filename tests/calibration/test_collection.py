"""What calibration remembers of real data: held against ONNX Runtime, and taken up where it was saved."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration import collection
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.collection import (
    SavedProgress,
    clear_progress,
    collect_statistics,
    inputs_digest,
    place_of_progress,
)
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.types import GraphName
from tests.calibration.streamed import Cases, cases_of
from tests.calibration.talk import Talk
from tests.selection.lowered import lowered_bundle

Bundles = Callable[[str], Bundle]


def with_tensors(path: Path, names: set[str]) -> onnxruntime.InferenceSession:
    """A graph that answers inner tensors, too."""
    model = onnx.load(path)
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - there))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_what_is_seen_is_what_onnx_runtime_computes(tiny_bundle: Bundles, talk: Talk, graph: GraphName) -> None:
    """Ranges are of real tokens only; what may not overflow is of all."""
    bundle = tiny_bundle("roberta")
    cases = cases_of(bundle, talk.train, dialogues=2 if graph == "swin" else 3)
    statistics = collect_statistics(bundle, {graph: {}}, cases, 1)[graph]
    sites = sites_of(GraphView(onnx.load(bundle.graph(graph), load_external_data=False)))
    sessions = {
        g: with_tensors(bundle.graph(g), {n for s in sites for n in (s.input, s.output)} if g == graph else set())
        for g in ("swin", "plm", "fusion")
    }
    inputs: dict[str, list[np.ndarray]] = {}
    outputs: dict[str, list[np.ndarray]] = {}
    for case in cases(0):
        given: dict[str, Any] = {}
        for g in [g for g in sessions if g in case]:
            asked = {**case[g], **given}
            names = [value.name for value in sessions[g].get_outputs()]
            answers = sessions[g].run(None, {i.name: asked[i.name] for i in sessions[g].get_inputs()})
            given |= dict(zip(names, answers, strict=True))
        for site in sites if graph in case else ():
            made, read = given[site.output], given[site.input]
            mask = case[graph].get("attention_mask")
            real = np.s_[:] if mask is None else mask.reshape(-1).astype(bool)
            outputs.setdefault(site.output, []).append(made)
            inputs.setdefault(site.input, []).append(read[real])
    assert statistics.cases == sum(graph in case for case in cases(0))
    for site in sites:
        found, extremes = statistics.inputs[site.input], statistics.outputs[site.output]
        rows, made = np.concatenate(inputs[site.input]), np.concatenate(outputs[site.output])
        assert len(rows) == found.rows * sum(other.input == site.input for other in sites)  # Q, K and V read the same
        np.testing.assert_allclose(found.column_largest, np.abs(rows).max(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.histogram.largest, np.abs(rows).max(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(extremes.magnitudes, np.abs(made).max(0), rtol=1e-3, atol=1e-4)


def test_smoothed_tensors_are_divided(tiny_bundle: Bundles, talk: Talk) -> None:
    bundle = tiny_bundle("unimodal")
    cases = cases_of(bundle, talk.train)
    plain = collect_statistics(bundle, {"unimodal": {}}, cases, 1)["unimodal"]
    name = plain.sites[2].input
    factors = np.linspace(0.5, 4, plain.sites[2].rows, dtype=np.float32)
    smoothed = collect_statistics(bundle, {"unimodal": {name: factors}}, cases, 1)["unimodal"]
    largest = {n: found.column_largest for n, found in plain.inputs.items()}
    for other, found in smoothed.inputs.items():
        expected = largest[other] / factors if other == name else largest[other]
        np.testing.assert_allclose(found.column_largest, expected, rtol=1e-6)


class StoppedError(Exception):
    pass


def stopping(cases: Cases, after: int) -> Cases:
    """Stops before so many more cases are given."""

    def few(first: int = 0) -> Iterator[CaseInputs]:
        yield from islice(cases(first), after)
        raise StoppedError

    return few


def same(one: GraphStatistics, other: GraphStatistics) -> bool:
    mine, its = one.arrays(), other.arrays()
    return mine.keys() == its.keys() and all(np.array_equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_taken_up_it_is_the_same_bit_for_bit(
    tiny_bundle: Bundles, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(collection, "SAVE_SECONDS", 0)
    bundle = tiny_bundle(model)
    cases, graph = cases_of(bundle, talk.train), list(bundle.manifest.graphs)[-1]
    asked: dict[GraphName, Any] = {graph: {}}
    whole = collect_statistics(bundle, asked, cases, 1, seed=3)[graph]
    progress, said = SavedProgress(tmp_path / "saved.npz", "digest"), []
    for _ in range(2):
        with pytest.raises(StoppedError):
            collect_statistics(bundle, asked, stopping(cases, 1), 1, seed=3, progress=progress, status=said.append)
    found = collect_statistics(bundle, asked, cases, 1, seed=3, progress=progress, status=said.append)[graph]
    assert same(found, whole)
    assert said == [f"going on after {n} batches of an interrupted calibration" for n in (1, 2)]
    assert not same(collect_statistics(bundle, asked, cases, 1, seed=4)[graph], whole)


def test_damaged_and_others_files_are_passed_over(
    tiny_bundle: Bundles, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere, changed anywhere, empty, something else, or of another digest: it is as if it were not there."""
    monkeypatch.setattr(collection, "SAVE_SECONDS", 0)
    bundle, path = tiny_bundle("unimodal"), tmp_path / "saved.npz"
    graph: GraphName = "unimodal"
    cases = cases_of(bundle, talk.train)
    whole = collect_statistics(bundle, {graph: {}}, cases, 1, progress=SavedProgress(path, "digest"))
    done = whole[graph].cases
    content, rng = path.read_bytes(), np.random.default_rng(0)
    fresh = GraphStatistics(graph, whole[graph].sites)
    assert SavedProgress(path, "another").load({graph: fresh}) == 0
    assert SavedProgress(tmp_path / "absent.npz", "digest").load({graph: fresh}) == 0
    damages = [content[: int(cut)] for cut in rng.integers(0, len(content), 25)]
    for place in rng.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        damages.append(bytes(changed))
    for damage in (b"", b"{}", *damages):
        path.write_bytes(damage)
        fresh = GraphStatistics(graph, whole[graph].sites)
        found = SavedProgress(path, "digest").load({graph: fresh})
        assert found == 0 or (found == done and same(fresh, whole[graph]))  # or what was changed says nothing
    path.write_bytes(content)
    assert SavedProgress(path, "digest").load({graph: fresh}) == done


def test_digests_are_of_all_that_counts(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    lowered = lowered_bundle(bundle, tmp_path / "bundle", {"unimodal": ["int8"]})
    known = inputs_digest(bundle, "data", {"seed": 0})
    assert inputs_digest(lowered, "data", {"seed": 0}) == known  # other precisions' graphs do not
    others = (bundle, "other", {"seed": 0}), (bundle, "data", {"seed": 1}), (tiny_bundle("bert"), "data", {"seed": 0})
    assert len({known, *(inputs_digest(*other) for other in others)}) == 4


def test_only_progress_is_cleared(tmp_path: Path) -> None:
    place = place_of_progress(tmp_path / "b", "all")
    assert place.parent == tmp_path
    gone = (place, place_of_progress(tmp_path / "b", "plm-int8"), place.with_name(f"{place.name}.17.tmp"))
    kept = (place_of_progress(tmp_path / "bb", "all"), tmp_path / ".b.calibration", tmp_path / "b.npz")
    for path in (*gone, *kept):
        path.touch()
    clear_progress(tmp_path / "b")
    assert set(tmp_path.iterdir()) == set(kept)


def test_another_calibration_that_is_done_first_clears_what_is_being_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is lost then, and nothing else."""
    save = np.savez

    def saved(*args: Any, **arrays: Any) -> None:
        save(*args, **arrays)
        clear_progress(tmp_path / "b")

    monkeypatch.setattr(np, "savez", saved)
    SavedProgress(place_of_progress(tmp_path / "b", "all"), "digest").save({}, 1)
    assert not list(tmp_path.iterdir())
