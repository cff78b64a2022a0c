"""When an answer counts as there, in every way of working; the published loop reads with one thread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.benchmark.choices import choice_from_option
from fmmt_deploy.benchmark.queries import queries_of
from fmmt_deploy.benchmark.sides import Opened, Side, offline_sides, single_stream_sides
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.pipeline import run
from fmmt_deploy.types import GraphName
from tests.benchmark.counting import CountingEngine

Bundles = Callable[[str], Bundle]
Sides = Callable[[Opened], list[Side]]


@dataclass
class OnItsWay:
    """An output that is waited for when it is read."""

    tensor: Tensor
    read: list[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensor.dtype

    def numpy(self) -> Array:
        self.read.append(len(self.tensor.numpy()))
        return self.tensor.numpy()


class Beginning(CountingEngine):
    """Remembers of how many utterances the logits were read."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.read = list[int]()

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        outputs = super().start(inputs, rows)
        return {**outputs, "logits": OnItsWay(outputs["logits"], self.read)}


@pytest.mark.parametrize("sides", [single_stream_sides, offline_sides])
def test_an_answer_is_there_when_its_logits_are(
    tiny_bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: Sides
) -> None:
    """A GPU returns before it has computed: who does not read what it answered is timed too short."""
    bundle, threads = tiny_bundle("roberta"), list[int]()
    right = run.read_faces

    def reading(paths: Any, count: int) -> Any:
        threads.append(count)
        return right(paths, count)

    monkeypatch.setattr(run, "read_faces", reading)
    choice = choice_from_option("ort", bundle.manifest.architecture)
    queries = queries_of(meld_shaped(bundle.manifest.architecture, tmp_path, 1, 2))
    with open_engines(bundle, "ort", threads=1) as engines:
        fusion = Beginning(engines["fusion"])
        graphs: dict[GraphName, Engine] = {"swin": engines["swin"], "plm": engines["plm"], "fusion": fusion}
        for side in sides(Opened(bundle, (choice,), {"ort": Engines("ort", graphs)}, choice, 4, 3)):
            fusion.read.clear()
            threads.clear()
            side.answering.answer(queries)
            assert sum(fusion.read) == len(queries), side.name
            assert set(threads) == {1 if side.way == "published" else 3}, side.name
