"""What the language model gets: texts padded so that shapes come again where new shapes cost, and answers as before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.tensorrt.profiles import TOKEN_MULTIPLE, Profiles, Range, default_profiles
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet
from tests.engines.tensorrt.simulated import simulated_engines

Bundles = Callable[[str], Bundle]


@pytest.fixture
def dataset(tiny_bundle: Bundles, tmp_path: Path) -> DataSet:
    return meld_shaped(tiny_bundle("roberta").manifest.architecture, tmp_path, dialogues=3, faces=1)


def texts(pipeline: Pipeline, dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The longest text, and the tokens that the engine got, of each group; it is encoded, too."""
    given: list[int] = []
    plm = pipeline.engines["plm"]

    def spied(inputs: dict[str, np.ndarray], *more: object) -> object:
        given.append(inputs["input_ids"].shape[1])
        return type(plm).start(plm, inputs, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(plm, "start", spied)
    longest = []
    for group in pipeline.plan(dataset):
        longest.append(max(map(len, group.windows)))
        pipeline.encode(group).numpy()
    return list(zip(longest, given, strict=True))


def test_tensorrt_gets_few_lengths(tiny_bundle: Bundles, dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle("roberta")
    with simulated_engines(bundle) as engines:
        found = texts(Pipeline(bundle, engines, batch_size=1), dataset, monkeypatch)
    assert found == [(longest, -(-longest // TOKEN_MULTIPLE) * TOKEN_MULTIPLE) for longest, _ in found]
    assert any(longest % TOKEN_MULTIPLE for longest, _ in found)


def test_padding_does_not_go_beyond_a_profile(
    tiny_bundle: Bundles, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that ends at the longest text takes it, though that is no multiple."""
    bundle = tiny_bundle("roberta")
    uneven = [d for d in dataset.dialogues if d.tokens is not None and len(d.tokens.input_ids) % TOKEN_MULTIPLE]
    longest = max(len(d.tokens.input_ids) for d in uneven if d.tokens is not None)
    graphs = dict(default_profiles(bundle.manifest.architecture).graphs)
    for graph in ("plm", "fusion"):
        graphs[graph] = tuple({**profile, "tokens": Range(2, 16, longest)} for profile in graphs[graph])
    with simulated_engines(bundle, profiles=Profiles("here", graphs)) as engines:
        some = DataSet("uneven", tuple(uneven), tuple(u.id for d in uneven for u in d.utterances))
        found = texts(Pipeline(bundle, engines, batch_size=1), some, monkeypatch)
    assert max(found) == (longest, longest)


def test_other_engines_get_texts_as_they_are(
    tiny_bundle: Bundles, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=1) as engines:
        assert all(longest == got for longest, got in texts(Pipeline(bundle, engines), dataset, monkeypatch))
