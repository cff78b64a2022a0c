"""What a column says of the cache is what is done: calls of the language model, counted."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.choices import choice_from_option
from fmmt_deploy.benchmark.queries import queries_of
from fmmt_deploy.benchmark.sides import Opened, Side, offline_sides, server_sides, single_stream_sides
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engine, Engines, Tensor, Value

Bundles = Callable[[str], Bundle]


class Counting:
    """Passes calls on, and counts the texts that are encoded."""

    def __init__(self, engine: Engine, texts: Counter[str]) -> None:
        self._engine, self._texts = engine, texts

    @property
    def inputs(self) -> Mapping[str, np.dtype[np.generic]]:
        return self._engine.inputs

    def run(self, inputs: Mapping[str, Value]) -> dict[str, np.ndarray]:
        return self._engine.run(inputs)

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        self._texts["encoded"] += inputs["input_ids"].shape[0]
        return self._engine.start(inputs, rows)

    def close(self) -> None: ...


@pytest.mark.parametrize("sides", [single_stream_sides, server_sides, offline_sides])
def test_with_the_cache_a_dialogue_is_encoded_once(
    tiny_bundle: Bundles, tmp_path: Path, sides: Callable[[Opened], list[Side]]
) -> None:
    bundle, texts = tiny_bundle("roberta"), Counter[str]()
    dataset = meld_shaped(bundle.manifest.architecture, tmp_path, 1, 1)
    queries, choice = queries_of(dataset), choice_from_option("ort", bundle.manifest.architecture)
    with open_engines(bundle, "ort", threads=1) as opened:
        graphs = {graph: opened[graph] for graph in ("swin", "fusion")} | {"plm": Counting(opened["plm"], texts)}
        engines = Engines("ort", graphs, opened.precisions, opened.face_batch, opened.token_multiple)
        found = sides(Opened(bundle, (choice,), {"ort": engines}, None, 4, 1))
        assert [side.cache for side in found] == [False, True]
        for side in found:
            texts.clear()
            for query in queries if sides is single_stream_sides else [None]:
                side.answering.answer((query,) if query else queries)
            assert texts["encoded"] == (1 if side.cache else len(queries)), side.name
