"""Teaches the demo's models what can be taught in seconds: the fusion and vision-only models, and the last face layer.

The language model and the face model's body stay random. It is a training, but of minutes of made-up talk: enough for
answers that depend on the face, the voice and the words, and are mostly sure and mostly right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.demo.dataset import WrittenSplit
from fmmt_deploy.demo.tokenizer import Tokenizer, dialogue_ids
from fmmt_deploy.reference.fusion import FusionModel, UnimodalModel
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS, IntArray, PixelArray

__all__ = ["fit_multimodal", "fit_unimodal"]

WEIGHT_DECAY = 0.03
LEARNING_RATE, EPOCHS, BATCH = 2e-3, 8, 32


def fit_multimodal(model: ReferenceModel, split: WrittenSplit, tokenizer: Tokenizer, kind: PlmKind) -> None:
    """Fits the face model's last layer, then, on its answers, teaches the fusion model."""
    counts = split.vision_mask.sum(1).astype(int)
    face_logits = _fit_faces(model, _pixels(split, counts), torch.from_numpy(np.repeat(split.labels, counts)))
    inputs = _text(model, split, tokenizer, kind) | _senses(split, counts) | {"face_logits": face_logits}
    rows = _inputs_of(model.fusion, lambda: model.run("fusion", inputs))
    _teach(model.fusion, rows, torch.from_numpy(split.labels))


def fit_unimodal(model: ReferenceModel, split: WrittenSplit) -> None:
    """Teaches the vision-only model, on the utterances that have a face."""
    seen = split.vision_mask.any(1)
    rows = (torch.from_numpy(split.vision[seen]), torch.from_numpy(split.vision_mask[seen]))
    _teach(model.unimodal, rows, torch.from_numpy(split.labels[seen]))


def _pixels(split: WrittenSplit, counts: IntArray) -> Tensor:
    images = []
    for paths, count in zip(split.faces, counts, strict=True):
        for path in paths[:count]:
            image = cast(PixelArray, cv2.imread(str(path)))
            how = cv2.INTER_AREA if image.shape[0] > FACE_PIXELS else cv2.INTER_CUBIC
            images.append(cv2.resize(image, (FACE_PIXELS, FACE_PIXELS), interpolation=how))
    return torch.from_numpy(np.stack(images))


@torch.no_grad()
def _fit_faces(model: ReferenceModel, faces: Tensor, labels: Tensor) -> Tensor:
    """Gives BatchNorm the mean and variance of what it sees, fits the last layer, and returns the logits (N, 7)."""
    face_model, norm = model.swin, cast(nn.BatchNorm1d, model.swin.output_layer[-1])
    features = torch.cat([_inputs_of(norm, partial(face_model, chunk))[0] for chunk in torch.split(faces, 8)])
    norm.running_mean, norm.running_var = features.mean(0), features.var(0)
    hidden = torch.relu(face_model.linear(norm(features)))
    _fit(face_model.classifier, hidden, labels)
    logits: Tensor = face_model.classifier(hidden)
    return logits


def _text(model: ReferenceModel, split: WrittenSplit, tokenizer: Tokenizer, kind: PlmKind) -> dict[str, Tensor]:
    """Token states of every dialogue, and where each utterance's own words are."""
    sequences, spans = [], {}
    for row, dialogue in enumerate(split.story):
        ids, starts, lengths = dialogue_ids(tokenizer, kind, [turn.text for turn in dialogue])
        sequences.append(torch.tensor(ids))
        for turn, start, length in zip(dialogue, starts, lengths, strict=True):
            spans[turn.id] = (row, start, min(length, model.fusion.text_length))
    padded = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True)
    states = model.run("plm", {"input_ids": padded, "attention_mask": mask})
    rows = torch.tensor([spans[turn.id] for turn in split.turns])
    return states | dict(zip(("text_row", "text_start", "text_length"), rows.unbind(1), strict=True))


def _senses(split: WrittenSplit, counts: IntArray) -> dict[str, Tensor]:
    """Audio and vision, the faces' rows in the batch of all faces, and no noise."""
    utterances, rows = split.vision_mask.shape
    index = np.arange(rows)[None, :] + (np.cumsum(counts) - counts)[:, None]
    return {
        "audio": torch.from_numpy(split.audio),
        "audio_length": torch.from_numpy(split.audio_length),
        "vision": torch.from_numpy(split.vision),
        "vision_mask": torch.from_numpy(split.vision_mask),
        "face_index": torch.from_numpy(index * (split.vision_mask > 0)),
        "noise": torch.zeros(utterances, rows, len(EMOTIONS)),
    }


def _inputs_of(layer: nn.Module, run: Callable[[], object]) -> tuple[Tensor, ...]:
    """What `layer` is given when `run` first runs it."""
    seen: list[tuple[Tensor, ...]] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    run()
    handle.remove()
    return tuple(given.clone() for given in seen[0])


def _teach(model: FusionModel | UnimodalModel, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
    """Trains all of a model, from a last layer that fits its random features: ten times shorter than from nothing."""
    with torch.no_grad():
        (features,) = _inputs_of(model.classifier, partial(model, *inputs))
    _fit(model.classifier, features, labels)
    with _one_thread():
        _train(model, inputs, labels)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps this small take longer with more, many times longer where other programs want the cores as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(model: FusionModel | UnimodalModel, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    order = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - epoch / EPOCHS)
        for rows in torch.split(torch.randperm(len(labels), generator=order), BATCH):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(*(given[rows] for given in inputs)), labels[rows])
            torch.autograd.backward(loss)
            optimiser.step()
    model.zero_grad()


def _fit(layer: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Multinomial logistic regression of `labels` on `features`, into `layer`."""
    scale = features.std(0).clamp_min(1e-6)  # a well-conditioned problem, put back into the weights below
    mean, x = features.mean(0), (features - features.mean(0)) / scale
    weight = torch.zeros(layer.out_features, layer.in_features, requires_grad=True)
    bias = torch.zeros(layer.out_features, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), labels) + WEIGHT_DECAY * weight.square().sum()
        torch.autograd.backward(value)
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_(weight / scale)
        layer.bias.copy_(bias - layer.weight @ mean)
