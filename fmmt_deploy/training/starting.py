"""The model that a training begins with: published weights where there are some, fresh layers everywhere else.

Fresh layers, of which our description of the published training says nothing: PyTorch's own initial values, which for
768 columns spread as BERT's normal(0, 0.02) do and for fewer as much wider as they must; language models have
transformers' (normal(0, 0.02)), Swins timm's. Only the tables of positions are drawn from normal(0, 0.02), as BERT's:
PyTorch's normal(0, 1) would drown what they are added to. All is drawn from `run.seed`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmmt_deploy.architecture import Architecture, FusionSizes, UnimodalSizes
from fmmt_deploy.errors import DataError, EnvironmentProblem, UsageError
from fmmt_deploy.training.draws import seed_of
from fmmt_deploy.training.face_backbone import FaceBackbone, read_face_backbone
from fmmt_deploy.training.plm_folder import PlmFolder, read_plm_folder
from fmmt_deploy.training.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from fmmt_deploy.data.sizes import FeatureSizes
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["POSITIONS_DEVIATION", "Start", "starting_model"]

POSITIONS_DEVIATION = 0.02
"""Of fresh tables of positions, as BERT's."""

_FACES = (
    "It is Swin_tiny_Ms-Celeb-1M.pt: a Swin trained to tell the faces of MS-Celeb-1M apart, which FacialMMT's authors "
    "publish beside their code."
)
_PLMS = {
    "roberta": "It is roberta-large, as FacebookAI publishes it on the Hugging Face Hub (a folder with its files).",
    "bert": "It is bert-large, as Google publishes it on the Hugging Face Hub (a folder with its files).",
}


@dataclass(frozen=True)
class Start:
    """A model to begin with.

    Attributes:
        model: It.
        tokenizer_json: Content of its `tokenizer.json`; None if it reads no text.
        sha256: Of every file read, by name.
        notes: What begins with random weights, and what in the files was not used.
    """

    model: ReferenceModel
    tokenizer_json: str | None
    sha256: Mapping[str, str]
    notes: tuple[str, ...]


def starting_model(
    settings: Settings,
    feature_sizes: FeatureSizes,
    plm_dir: Path | None,
    swin_weights: Path | None,
    from_scratch: bool,
) -> Start:
    """Makes the model.

    Args:
        settings: Its sizes, its dropout, the seed.
        feature_sizes: Of the data.
        plm_dir: The language model's folder; without weights in it, only with `from_scratch`.
        swin_weights: See `face_backbone`.
        from_scratch: Whether parts without published weights may begin with random ones.

    Raises:
        UsageError: Weights are not given, or given for a part that the model does not have.
        CheckpointError: They can't be read, or are of another model.
        DataError: The tokenizer can't be read, or the data have no audio.
        EnvironmentProblem: The model is too large for this machine's memory.
    """
    if settings.model.modality == "V":
        return _vision_only(settings, feature_sizes, plm_dir, swin_weights)
    from fmmt_deploy.reference.loading import load_strictly

    plm, swin = _given(settings, plm_dir, swin_weights, from_scratch)
    fusion = _fusion_sizes(settings.model, feature_sizes)
    architecture = Architecture("T+A+V", settings.model.swin, plm.sizes, fusion, context=settings.model.context)
    model = _fresh(architecture, settings)
    notes = [*plm.notes]
    if plm.tensors is None:
        notes.append("the language model begins with random weights")
    else:
        load_strictly(model.plm.plm, "plm", plm.tensors)
    if swin is None:
        notes.append("the Swin begins with random weights")
    else:
        notes += swin.notes
        own = {n: t.numpy() for n, t in model.swin.state_dict().items() if n.startswith(("linear.", "classifier."))}
        load_strictly(model.swin, "swin", {**swin.tensors, **own})
    hashes = {**plm.sha256, **({} if swin is None else swin.sha256)}
    return Start(model, plm.tokenizer, hashes, tuple(notes))


def _vision_only(
    settings: Settings, feature_sizes: FeatureSizes, plm_dir: Path | None, swin_weights: Path | None
) -> Start:
    for option, given in (("--plm-dir", plm_dir), ("--swin-weights", swin_weights)):
        if given is not None:
            raise UsageError(
                f"A vision-only model begins with nothing, but {option} is given.",
                fix=f"Leave out {option}, or train a T+A+V model.",
            )
    vision = feature_sizes.vision
    sizes = UnimodalSizes(
        hidden_size=settings.model.hidden_size,
        heads=settings.model.heads,
        vision_length=vision.length,
        vision_size=vision.size,
        vision_layers=settings.model.vision_layers,
    )
    return Start(_fresh(Architecture("V", unimodal=sizes), settings), None, {}, ())


def _given(
    settings: Settings, plm_dir: Path | None, swin_weights: Path | None, from_scratch: bool
) -> tuple[PlmFolder, FaceBackbone | None]:
    kind = settings.model.plm
    if plm_dir is None:
        raise UsageError(
            "The language model's folder is not given.",
            why=_PLMS[kind],
            fix="Give it as --plm-dir DIR; with --from-scratch its tokenizer and config.json suffice.",
        )
    plm = read_plm_folder(plm_dir, kind)
    if plm.tensors is None and not from_scratch:
        raise UsageError(
            f"{plm_dir} has no weights (model.safetensors or pytorch_model.bin).",
            why=_PLMS[kind],
            fix="Give a folder with weights as --plm-dir DIR, or --from-scratch to begin with random ones.",
            path=plm_dir,
        )
    if swin_weights is not None:
        return plm, read_face_backbone(swin_weights, settings.model.swin)
    if not from_scratch:
        raise UsageError(
            "The weights that the Swin begins with are not given.",
            why=_FACES,
            fix="Give it as --swin-weights FILE, or --from-scratch to begin with random ones.",
        )
    return plm, None


def _fusion_sizes(model: ModelSettings, feature_sizes: FeatureSizes) -> FusionSizes:
    audio, vision = feature_sizes.audio, feature_sizes.vision
    if audio is None:
        raise DataError(
            "The data have no audio features, which a T+A+V model needs.",
            fix="Train a vision-only model: --config training/v-only.toml.",
        )
    return FusionSizes(
        hidden_size=model.hidden_size,
        heads=model.heads,
        text_length=model.text_length,
        audio_length=audio.length,
        audio_size=audio.size,
        audio_layers=model.audio_layers,
        vision_length=vision.length,
        vision_size=vision.size,
        vision_layers=model.vision_layers,
        crossmodal_layers=model.crossmodal_layers,
    )


def _check_memory(architecture: Architecture) -> None:
    """Refuses at once what would use up this machine's memory first.

    Raises:
        EnvironmentProblem: The weights alone have no room in it.
    """
    import torch

    from fmmt_deploy.reference.model import ReferenceModel

    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with torch.device("meta"):
            needed = 4 * sum(parameter.numel() for parameter in ReferenceModel(architecture).parameters())
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        needed = 2**63
    if needed > there:
        raise EnvironmentProblem(
            "The model is too large for this machine's memory.",
            why=f"Its weights alone are {needed / 1e9:.0f} GB or more, and there are {there / 1e9:.0f} GB.",
            fix="Make hidden_size, numbers of layers, or sizes of model.swin smaller.",
        )


def _fresh(architecture: Architecture, settings: Settings) -> ReferenceModel:
    import torch

    from fmmt_deploy.reference.layers import UtteranceEncoder
    from fmmt_deploy.reference.model import DropRates, ReferenceModel

    _check_memory(architecture)
    rates = settings.model
    drop = DropRates(plm=rates.plm_dropout, encoders=rates.dropout, path=rates.drop_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.run.seed, "start"))
        model = ReferenceModel(architecture, rates.tau, rates.threshold, drop)
        for module in model.modules():
            if isinstance(module, UtteranceEncoder):
                torch.nn.init.normal_(module.position_embeddings.weight, std=POSITIONS_DEVIATION)
    return model
