"""What is verified, and with how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.tensorrt.flavour import FLAVOURS, FlavourName

__all__ = ["FULL", "SCENARIOS", "TINY", "Scenario", "Settings", "files_step", "settings_for"]

Scenario: TypeAlias = Literal["single-stream", "offline"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "offline")
"""How utterances come that are answered from files to labels; as `fmmt bench` has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a verification does.

    Attributes:
        model: A random model of the published sizes, or a tiny one.
        seconds: How long all of it may take.
        folder: Where the model and its engines are made.
        reference: What is right, and the engine it is computed with.
        published: What the published loop runs on.
        others: Engines that are not ours to build, as `--engine` names them.
        flavours: Which TensorRTs.
        precisions: Of the graphs that are cast and built, the most important first.
        profile: A profile file for the engines; default `default_profiles`.
        optimization_level: Of the engines.
        faces: Mean faces an utterance; every number is measured by itself.
        dialogues: MELD-shaped dialogues whose utterances are answered one after the other.
        offline_dialogues: Dialogues whose utterances are answered at once, for throughput.
        offline_batch: Utterances that are then fused together.
        rounds: Turns of every engine in every table, if there is time; of fewer than six no ratio has an interval.
        text_batches: Dialogues and tokens of `plm` alone.
        face_batches: Faces of `swin` alone.
        needs_gpu: Whether steps for a GPU are refused where there is none; False lets stand-ins run, in tests.
    """

    model: Literal["full", "tiny"]
    seconds: float
    folder: Path
    reference: str = "torch-cuda"
    published: str = "torch-cuda:fp16"
    others: tuple[str, ...] = ("torch-cuda:fp16", "ort-cuda", "ort-cuda:fp16", "torch-compiled:fp16")
    flavours: tuple[FlavourName, ...] = FLAVOURS
    precisions: tuple[Precision, ...] = ("fp16", "fp32", "int8")
    profile: Path | None = None
    optimization_level: int = 3
    faces: tuple[int, ...] = (10, 50)
    dialogues: int = 2
    offline_dialogues: int = 6
    offline_batch: int = 32
    rounds: int = 6
    text_batches: tuple[tuple[int, int], ...] = ((1, 128), (8, 128), (32, 128), (8, 256), (32, 256), (1, 512))
    face_batches: tuple[int, ...] = (1, 8, 32, 64)
    needs_gpu: bool = True


TINY: dict[str, object] = {
    "faces": (2,),
    "dialogues": 1,
    "offline_dialogues": 2,
    "offline_batch": 4,
    "rounds": 1,
    "text_batches": ((1, 16), (4, 32)),
    "face_batches": (1, 4),
}
"""What is smaller with a tiny model."""

FULL: dict[str, object] = {}


def settings_for(model: Literal["full", "tiny"], seconds: float, folder: Path, **changes: object) -> Settings:
    """The settings for a model, with changes."""
    smaller = TINY if model == "tiny" else FULL
    return Settings(model=model, seconds=seconds, folder=folder, **{**smaller, **changes})  # type: ignore[arg-type]


def files_step(faces: int, scenario: Scenario) -> str:
    """The name of the step that measures from files to labels."""
    return f"{faces} faces, {scenario}"
