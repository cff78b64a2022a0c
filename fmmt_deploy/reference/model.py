"""The whole reference model: one PyTorch module a graph, with the graphs' own inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.reference.fusion import FusionModel, UnimodalModel, gate_faces, text_rows
from fmmt_deploy.reference.plm import TextModel
from fmmt_deploy.reference.swin import FaceModel
from fmmt_deploy.types import GraphName

__all__ = ["DropRates", "ReferenceModel"]


@dataclass(frozen=True, slots=True)
class DropRates:
    """What is dropped at random in training, and never otherwise; none of it is in a checkpoint.

    Attributes:
        plm: Dropout of the language model.
        encoders: Dropout of the fusion's, or the vision-only model's, encoders.
        path: Stochastic depth of the Swin's last block; earlier ones have less.
    """

    plm: float = 0.0
    encoders: float = 0.0
    path: float = 0.0


Stage = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class ReferenceModel(nn.Module):
    """What every engine is compared with.

    Its parts are `swin`, `plm` and `fusion` (T+A+V), or `unimodal` (V); they are the prefixes of its weights' names.

    Args:
        architecture: Sizes of every part.
        tau: Temperature of the face probabilities.
        threshold: Confidence a face must exceed to be kept.
        drop: For training.
    """

    def __init__(
        self, architecture: Architecture, tau: float = 1.0, threshold: float = 0.2, drop: DropRates | None = None
    ) -> None:
        super().__init__()
        self.architecture, self.tau, self.threshold = architecture, tau, threshold
        drop = drop or DropRates()
        if architecture.unimodal is not None:
            self.unimodal = UnimodalModel(architecture.unimodal, drop.encoders)
        if architecture.swin is not None:
            self.swin = FaceModel(architecture.swin, drop.path)
        if architecture.fusion is not None:
            self.fusion = FusionModel(architecture.fusion, drop.encoders)
            if architecture.plm is not None:
                self.plm = TextModel(architecture.plm, architecture.fusion.hidden_size, drop.plm)
        self.eval()

    @torch.inference_mode()
    def run(self, graph: GraphName, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs one part with the inputs of the graph of that name; see `fmmt_deploy.export` for the shapes."""
        return self.compute(graph, inputs)

    def compute(self, graph: GraphName, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `run`, for training: gradients can be taken of it."""
        stage = cast(Stage, getattr(self, f"_run_{graph}"))
        return stage(inputs)

    def _run_swin(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"face_logits": self.swin(inputs["faces"])}

    def _run_plm(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"token_states": self.plm(inputs["input_ids"], inputs["attention_mask"])}

    def _run_fusion(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        states, row, start, length = (inputs[n] for n in ("token_states", "text_row", "text_start", "text_length"))
        words, words_mask = text_rows(states, row, start, length, self.fusion.text_length)
        rows, mask, face_logits, index, noise = (
            inputs[n] for n in ("vision", "vision_mask", "face_logits", "face_index", "noise")
        )
        vision, vision_mask, kept = gate_faces(rows, mask, face_logits, index, noise, self.tau, self.threshold)
        audio, device = inputs["audio"], states.device
        vision, vision_mask = vision.to(device), vision_mask.to(device)  # the gate may be elsewhere, see engines.torch
        audio_mask = (torch.arange(audio.shape[1], device=audio.device) < inputs["audio_length"][:, None]).to(audio)
        return {"logits": self.fusion(words, words_mask, audio, audio_mask, vision, vision_mask), "kept": kept}

    def _run_unimodal(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.unimodal(inputs["vision"], inputs["vision_mask"])}
