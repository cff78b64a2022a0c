"""What a new graph is held against at once: float32's answers, and the noise beside them, by NumPy."""

from collections.abc import Callable, Mapping
from math import inf, nan

import numpy as np
import onnxruntime
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.examples import Example, check_sqnr, examples_from_cases, sqnr_of_engine
from fmmt_deploy.engines.host import started_on_host
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.errors import ParityError
from fmmt_deploy.types import GraphName
from tests.calibration.streamed import cases_of
from tests.calibration.talk import Talk

Bundles = Callable[[str], Bundle]


class Answering:
    """An engine that answers what it was told to."""

    inputs: Mapping[str, np.dtype] = {}

    def __init__(self, *answers: Mapping[str, Array]) -> None:
        self._answers = list(answers)

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        del inputs
        return dict(self._answers.pop(0))

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        pass


def by_hand(right: Array, found: Array) -> float:
    noise = np.square(found.astype(float) - right).sum()
    return float(10 * np.log10(np.square(right.astype(float)).sum() / noise))


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_examples_are_what_onnx_runtime_answers(tiny_bundle: Bundles, talk: Talk, graph: GraphName) -> None:
    """All faces of a batch, which come some at a time; and no more batches than asked for."""
    bundle = tiny_bundle("roberta")
    (found,) = examples_from_cases(bundle, [graph], cases_of(bundle, talk.train)(0), 1, count=3).values()
    assert 1 <= len(found) <= 3
    session = onnxruntime.InferenceSession(bundle.graph(graph), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    for example in found:
        answers = dict(zip(names, session.run(None, dict(example.inputs)), strict=True))
        assert example.outputs.keys() == {name for name, array in answers.items() if array.dtype.kind == "f"}
        for name, array in example.outputs.items():
            np.testing.assert_allclose(array, answers[name], rtol=1e-3, atol=1e-4)


def test_noise_is_over_all_batches_and_real_tokens() -> None:
    rng = np.random.default_rng(0)
    masks = [np.array([[1, 1, 0], [1, 0, 0]]), np.array([[1, 1, 1]])]
    right = [rng.standard_normal((*mask.shape, 4)).astype(np.float32) for mask in masks]
    noisy = [states + rng.standard_normal(states.shape).astype(np.float32) / 10 for states in right]
    expected = by_hand(*(np.concatenate([s[m == 1] for s, m in zip(of, masks, strict=True)]) for of in (right, noisy)))
    for states, mask in zip(noisy, masks, strict=True):
        states[mask == 0] = 1000  # nobody reads it
    examples = [Example({"attention_mask": m}, {"states": s}) for m, s in zip(masks, right, strict=True)]
    engine = Answering(*({"states": states} for states in noisy))
    assert sqnr_of_engine(engine, examples) == {"states": pytest.approx(expected, abs=1e-3)}


def test_the_gate() -> None:
    """Not a number is not enough of one."""
    right = np.ones((2, 3), np.float32)
    example = Example({}, {"logits": right})
    broken = right.copy()
    broken[1, 1] = np.nan
    assert sqnr_of_engine(Answering({"logits": right}), [example]) == {"logits": inf}
    found = sqnr_of_engine(Answering({"logits": broken}), [example])
    assert not found["logits"] > -inf
    check_sqnr("fusion", "int8", {"logits": inf})
    check_sqnr("fusion", "int8", {"logits": 10.0})
    for decibels in (found["logits"], nan, 9.99):
        with pytest.raises(ParityError, match="fusion in int8 answers with too much noise: logits has") as caught:
            check_sqnr("fusion", "int8", {"states": 30.0, "logits": decibels})
        assert (caught.value.exit_code, caught.value.tensor) == (4, "logits")
    check_sqnr("fusion", "int8", {"logits": 9.99}, least_db=5)
