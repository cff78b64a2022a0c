"""Models, bundles and data sets that several tests need, made once a session (see `conftest`)."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fmmt_deploy.architecture import Architecture, PlmKind, PlmSizes, UnimodalSizes
from fmmt_deploy.bundle.selftest import Stage
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.engines.ort.load import engine_from_onnx
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.export.export import export_bundle
from fmmt_deploy.export.source import Source
from fmmt_deploy.parity.run import accept_graph
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.presets import PRESETS, random_model
from fmmt_deploy.types import DataSet, GraphName
from tests.cli.running import exit_code
from tests.golden import GOLDEN

PUBLISHED_NAMES: dict[PlmKind, str] = {"roberta": "RoBERTa", "bert": "BERT"}
TINY: dict[str, Architecture] = {
    "roberta": PRESETS["tiny"],
    "bert": replace(PRESETS["tiny"], plm=PlmSizes("bert", 1000, 64, 2, 4, 128, 512, 1e-12, 2)),
    "unimodal": Architecture(modality="V", unimodal=UnimodalSizes(48, 12, 6, 16, 2)),
}
"""One small model of every kind."""

ON_CPU: tuple[EngineKind, ...] = ("ort", "torch")
"""The engines that run on any machine."""


@dataclass(frozen=True)
class Golden:
    """A golden model, exported by the command line, and what the published code computed with it."""

    kind: PlmKind
    bundle: Path
    unimodal: Path

    @property
    def data(self) -> Path:
        return GOLDEN / self.kind

    @cached_property
    def expected(self) -> dict[str, NDArray[Any]]:
        with np.load(self.data / "expected.npz") as arrays:
            return dict(arrays)

    @cached_property
    def dataset(self) -> DataSet:
        return read_data(self.data, "test", Bundle.open(self.bundle).manifest.architecture)


def make_golden(kind: PlmKind, folder: Path) -> Golden:
    """Exports the published pickles of `tests/golden` as a user would; the Swin comes from its recipe."""
    published = GOLDEN / kind / "pretrained_model"
    swin = folder / "swin.safetensors"
    save_file(swin_from_recipe(GOLDEN / kind / "swin_recipe.json"), swin)
    bundle, unimodal = folder / "bundle", folder / "unimodal"
    name = PUBLISHED_NAMES[kind]
    multimodal = published / f"FacialMMT-{name}" / f"multimodal_T+A+V_{name}.pt"
    threshold = json.loads((GOLDEN / kind / "settings.json").read_text())["threshold"]
    arguments = ["--swin-ckpt", str(swin), "--plm-dir", str(published / f"{kind}-large")]
    if threshold != 0.2:  # the published value, and so the default
        arguments += ["--threshold", str(threshold)]
    assert exit_code("export", "--ckpt", str(multimodal), *arguments, "-o", str(bundle), "-q") == 0
    vision_only = published / "FacialMMT-unimodal" / "unimodal_model_V.pt"
    assert exit_code("export", "--ckpt", str(vision_only), "-o", str(unimodal), "-q") == 0
    swin.unlink()
    return Golden(kind, bundle, unimodal)


def swin_from_recipe(path: Path) -> dict[str, NDArray[np.float32]]:
    """The golden Swin's weights: seeded noise by name and shape, as the recipe's authors state it."""
    recipe = json.loads(path.read_text())
    tensors = {}
    for name, shape in recipe["shapes"].items():
        rng = np.random.default_rng([zlib.crc32(name.encode()), recipe["seed"]])
        x = rng.standard_normal(shape).astype(np.float32)
        if name.endswith("running_var"):
            x = 1 + 0.5 * np.tanh(x)
        elif name.endswith("running_mean"):
            x = 0.1 * x
        elif len(shape) >= 2:
            x = x / np.float32(np.sqrt(np.prod(shape[1:])))
        else:
            x = 1 + 0.1 * x if name.endswith("weight") else 0.05 * x
        if name == "classifier.weight":
            x = x * recipe["classifier.weight_scale"]
        tensors[name] = np.asarray(x, np.float32)
    return tensors


def tiny_model(name: str) -> ReferenceModel:
    """A model of `TINY`; its Swin is made surer, so that the gate keeps some faces and drops others."""
    model = random_model(TINY[name])
    if TINY[name].swin is not None:
        with torch.no_grad():
            model.swin.classifier.weight.mul_(8)
    return model


def tiny_source(name: str) -> Source:
    """A model of `TINY` with a tokenizer."""
    model = tiny_model(name)
    plm = model.architecture.plm
    if plm is None:
        return Source(model, None, {})
    return Source(model, tokenizer_json(GOLDEN / plm.kind / "pretrained_model" / f"{plm.kind}-large", plm.kind), {})


def accept_on_ort(graph: GraphName, file: Path, stage: Stage) -> None:
    """Holds a graph against the reference in ONNX Runtime, as `fmmt export` does."""
    accept_graph(graph, engine_from_onnx(graph, file, 1), stage)


def export_tiny(name: str, path: Path) -> Bundle:
    """Exports a model of `TINY`."""
    return export_bundle(tiny_source(name), path, accept=accept_on_ort)
