"""How good a live model is: its answers by the pipeline, its scores by the evaluation, as `fmmt eval` has both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.engines.protocol import Engine, Engines
from fmmt_deploy.evaluation.evaluation import Evaluation, evaluate
from fmmt_deploy.pipeline.noise import Noise, gumbel_noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.training.settings import NoiseMode, Settings
from fmmt_deploy.types import EMOTIONS, DataSet, FloatArray, GraphName

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["answers", "evaluate_model", "labels_of", "noise_of", "validator"]

_HOST_BATCH, _DEVICE_BATCH = 8, 32
"""Utterances at a time: a CPU gains nothing from more, a GPU is not filled by fewer."""


@dataclass(frozen=True, slots=True)
class _Live:
    """A live model as the pipeline takes it, see `fmmt_deploy.pipeline.run.Served`."""

    architecture: Architecture
    tokenizer: str | None

    def tokenizer_json(self) -> str | None:
        return self.tokenizer


def validator(
    dataset: DataSet, tokenizer_json: str | None, settings: Settings, device: str
) -> Callable[[ReferenceModel], Evaluation]:
    """What scores a model after each epoch: always on the same utterances, with the same noise.

    The score depends on the weights alone, so it is enough that one process asks for it.

    Args:
        dataset: The validation split.
        tokenizer_json: Of a model that reads text.
        settings: `target.validation_noise` and `run.seed` are used.
        device: See `answers`.
    """

    def validate(model: ReferenceModel) -> Evaluation:
        return evaluate_model(
            model, tokenizer_json, dataset, settings.target.validation_noise, settings.run.seed, device
        )

    return validate


def evaluate_model(
    model: ReferenceModel, tokenizer_json: str | None, dataset: DataSet, noise: NoiseMode, seed: int, device: str
) -> Evaluation:
    """Scores a model.

    Args:
        model: In whatever mode; it is left in that mode.
        tokenizer_json: Of a model that reads text.
        dataset: Every utterance must have a label.
        noise: On the faces' logits.
        seed: Of `gumbel` noise, as `fmmt eval --seed`.
        device: See `answers`.

    Raises:
        DataError: See `fmmt_deploy.evaluation.evaluation.evaluate`, and what the pipeline refuses.
        FmmtError: The model answered NaN.
    """
    logits = answers(model, tokenizer_json, dataset, noise_of(noise, seed), device)
    return evaluate(dataset.order, labels_of(dataset), logits)


def answers(
    model: ReferenceModel, tokenizer_json: str | None, dataset: DataSet, noise: Noise = no_noise, device: str = "cpu"
) -> FloatArray:
    """Logits (U, 7) in the data set's order, in float32, whatever the training's precision is.

    Args:
        model: On `device`. While it is asked it is in evaluation mode; each of its modules gets its own mode back.
        tokenizer_json: Of a model that reads text.
        dataset: What it is asked.
        noise: On the faces' logits.
        device: As PyTorch names it.
    """
    with _evaluating(model), _engines(model, device) as engines:
        batch_size = _HOST_BATCH if device == "cpu" else _DEVICE_BATCH
        pipeline = Pipeline(_Live(model.architecture, tokenizer_json), engines, batch_size=batch_size)
        found = {prediction.utterance: prediction.logits for prediction in pipeline.run(dataset, noise)}
    return np.array([found[utterance] for utterance in dataset.order], np.float32).reshape(-1, len(EMOTIONS))


def labels_of(dataset: DataSet) -> list[int | None]:
    """Labels (U,) in the data set's order."""
    known = {u.id: u.label for dialogue in dataset.dialogues for u in dialogue.utterances}
    return [known[utterance] for utterance in dataset.order]


def noise_of(mode: NoiseMode, seed: int) -> Noise:
    """The noise that a mode names."""
    return gumbel_noise(seed) if mode == "gumbel" else no_noise


def _engines(model: ReferenceModel, device: str) -> Engines:
    if device == "cpu":
        from torch import get_num_threads

        from fmmt_deploy.engines.torch.load import engines_from_model

        return Engines("torch", engines_from_model(model, get_num_threads()))  # which sets them, to what they are
    from fmmt_deploy.engines.torch.device import DeviceEngine
    from fmmt_deploy.engines.torch.load import DEVICE_FACE_BATCH

    opened: dict[GraphName, Engine] = {g: DeviceEngine(g, model, device) for g in graphs_of(model.architecture)}
    return Engines("torch-cuda", opened, face_batch=DEVICE_FACE_BATCH)


@contextmanager
def _evaluating(model: ReferenceModel) -> Iterator[None]:
    """Evaluation mode; afterwards each module has its own mode again, for a part may be in another than the rest."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
