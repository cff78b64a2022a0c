"""What a training does: frozen, typed, checked without looking at any file. The defaults: the published T+A+V run.

Source: FacialMMT (Zheng et al., ACL 2023) as released; where it does not tell (dropout), the usual value of BERT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fmmt_deploy.architecture import Context, Modality, PlmKind, SwinSizes

__all__ = [
    "ClassWeights",
    "FaceSettings",
    "ModelSettings",
    "NoiseMode",
    "Precision",
    "RunSettings",
    "Settings",
    "StepOrder",
    "TargetSettings",
]

NoiseMode = Literal["none", "gumbel"]
StepOrder = Literal["utterances", "dialogues"]
ClassWeights = Literal["none", "balanced"]
Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What is trained; rows and columns of features are read off the data, the language model off its folder.

    Attributes:
        modality: T+A+V or V.
        plm: Which language model.
        context: Which turns an utterance's words are read with; `past` fits a model for live use.
        hidden_size: H.
        heads: Of every encoder but the language model's and the Swin's.
        text_length: Words of an utterance that are used.
        audio_layers: Of the audio encoder.
        vision_layers: Of the vision encoder (and of the vision-only model's).
        crossmodal_layers: Of both cross-modal encoders.
        tau: Temperature of the face probabilities.
        threshold: Confidence a face must exceed.
        swin: Sizes of the Swin.
        plm_dropout: Dropout in the language model.
        dropout: Dropout in the other encoders.
        drop_path: Stochastic depth in the Swin.
    """

    modality: Modality = "T+A+V"
    plm: PlmKind = "roberta"
    context: Context = "dialogue"
    hidden_size: int = 768
    heads: int = 12
    text_length: int = 38
    audio_layers: int = 5
    vision_layers: int = 2
    crossmodal_layers: int = 2
    tau: float = 1.0
    threshold: float = 0.2
    swin: SwinSizes = field(default_factory=SwinSizes)
    plm_dropout: float = 0.1
    dropout: float = 0.1
    drop_path: float = 0.3


@dataclass(frozen=True, slots=True)
class FaceSettings:
    """The first phase of an epoch: the Swin on labelled faces (Aff-Wild2). Augmentations are probabilities.

    Attributes:
        epochs: In so many epochs from the first; 0 leaves the phase out.
        batch_size: Faces a step, over all processes.
        learning_rate: Of AdamW, at its peak.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises.
        clip: Largest norm of the gradient.
        published_probabilities: Apply grey, jitter and blur when the draw is ABOVE their probability, as the published
            code does; false applies each with its probability.
        grey: Colours away.
        jitter: Brightness, contrast, saturation and hue changed by up to `jitter_strength`.
        jitter_strength: See `jitter`.
        blur: Gaussian blur.
        erase: A rectangle is replaced by noise.
        limit: Use at most so many faces an epoch, drawn anew each time; 0 takes all.
    """

    epochs: int = 1000
    batch_size: int = 150
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip: float = 0.8
    published_probabilities: bool = True
    grey: float = 0.8
    jitter: float = 0.2
    jitter_strength: float = 0.4
    blur: float = 0.5
    erase: float = 0.25
    limit: int = 0


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """The second phase: emotions of utterances.

    Attributes:
        epochs: At most.
        batch_size: Utterances a pass, over all processes; dialogues are never cut for it when `order` is `dialogues`.
        accumulate: Passes a step.
        order: Shuffle utterances, as published, or whole dialogues, each of which is then encoded once.
        learning_rate: Of AdamW, at its peak.
        plm_learning_rate: Of the language model; 0 takes `learning_rate`.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises; then it falls to 0 in a line.
        clip: Largest norm of the gradient.
        jitter: Strength of the faces' colour jitter.
        noise: Gumbel draws on the faces' logits, as published, or none.
        moves_faces: Whether the target loss moves the Swin too (the paper's intent; the published code never does it).
        faces_learning_rate: Of the Swin, if it is moved.
        class_weights: `balanced` weighs an emotion by the inverse of its frequency.
        validation_noise: Noise in validation, by which the best epoch is chosen.
        patience: Stop after so many epochs without a better one; 0 never.
    """

    epochs: int = 10
    batch_size: int = 1
    accumulate: int = 4
    order: StepOrder = "utterances"
    learning_rate: float = 7e-6
    plm_learning_rate: float = 0.0
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip: float = 0.8
    jitter: float = 0.5
    noise: NoiseMode = "gumbel"
    moves_faces: bool = False
    faces_learning_rate: float = 5e-5
    class_weights: ClassWeights = "none"
    validation_noise: NoiseMode = "gumbel"
    patience: int = 0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How it is run; none of this changes what is learnt, but for the seed and the precision.

    Attributes:
        seed: For everything drawn.
        precision: fp32, or what products are autocast to.
        workers: Processes that read data; 0 reads in the training process itself.
        face_cache_gib: Decoded faces kept, in GiB.
        save_minutes: A checkpoint to resume from is written after each phase, and at least so often.
    """

    seed: int = 1111
    precision: Precision = "fp16"
    workers: int = 2
    face_cache_gib: float = 4.0
    save_minutes: float = 15.0


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them, as a recipe's tables are named."""

    model: ModelSettings = field(default_factory=ModelSettings)
    faces: FaceSettings = field(default_factory=FaceSettings)
    target: TargetSettings = field(default_factory=TargetSettings)
    run: RunSettings = field(default_factory=RunSettings)
