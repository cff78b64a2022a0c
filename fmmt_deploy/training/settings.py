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
        modality: Text, audio and vision with faces; or the vision-only model.
        plm: Which language model.
        context: Which turns an utterance's words are read with; `past` fits a model for live use.
        hidden_size: H, columns of every encoder but the language model's and the Swin's.
        heads: Attention heads of the same.
        text_length: Tokens of an utterance's own words that are used.
        audio_layers: Layers of the audio encoder.
        vision_layers: Layers of the vision encoder, also in the vision-only model.
        crossmodal_layers: Layers of each of the two cross-modal encoders.
        tau: Temperature of the face probabilities.
        threshold: Confidence a face must exceed.
        swin: Sizes of the Swin; those of Swin_tiny_Ms-Celeb-1M.pt by default.
        plm_dropout: Dropout in the language model.
        dropout: Dropout in the other encoders.
        drop_path: Stochastic depth in the Swin, of its last block; earlier ones have less.
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
        epochs: So many epochs, from the first on, begin with this phase; 0 leaves it out.
        batch_size: Faces a step, over all processes.
        learning_rate: Of AdamW, at its peak.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises.
        clip: Largest norm of the gradient.
        published_probabilities: Apply grey, jitter and blur when the draw is ABOVE their probability, as the published
            code does; false applies each with its probability.
        grey: Probability that colours are taken away.
        jitter: Probability that brightness, contrast, saturation and hue change.
        jitter_strength: By how much they change.
        blur: Probability of a Gaussian blur.
        erase: Probability that a rectangle is replaced by noise; always meant as it is.
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
        epochs: At most so many.
        batch_size: Utterances a pass, over all processes; whole dialogues up to so many where `order` is `dialogues`.
        accumulate: Passes a step.
        order: Shuffle utterances, as published, or whole dialogues, each of which is then encoded once.
        learning_rate: Of AdamW, at its peak: of all that is not named below.
        plm_learning_rate: Of the language model; 0 takes `learning_rate`.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises; then it falls to 0 in a line.
        clip: Largest norm of the gradient.
        jitter: Strength of the faces' colour jitter.
        noise: Draws on the faces' logits: Gumbel's, as published, or none.
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
        seed: Of everything that is drawn.
        precision: What products are computed in (autocast); fp16 needs a GPU.
        workers: Processes that read data; 0 reads in the training process itself.
        face_cache_gib: Decoded faces are kept up to so many GiB.
        save_minutes: What a run is resumed from is written after each phase, and at least so often.
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
