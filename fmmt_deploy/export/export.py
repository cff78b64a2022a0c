"""From a reference model to a bundle: weights, graphs, tokenizer and self-test, accepted graph by graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Manifest, SourceEntry, graphs_of
from fmmt_deploy.bundle.selftest import Stage, write_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import Finish, write_bundle
from fmmt_deploy.export.builder import WeightFile
from fmmt_deploy.export.fusion import fusion_graph
from fmmt_deploy.export.plm import plm_graph
from fmmt_deploy.export.samples import sample_dialogues, sample_faces, sample_utterances, sample_vision
from fmmt_deploy.export.swin import swin_graph
from fmmt_deploy.export.unimodal import unimodal_graph
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from fmmt_deploy.export.source import Source
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["Accept", "export_bundle", "graph_from_weights", "planned_files", "self_test_stages"]

Accept = Callable[[GraphName, Path, Stage], None]
"""Checks a graph against the reference's answers on the self-test's inputs; raises ParityError."""

GRAPH_FOLDER = "graphs/fp32"
TOKENIZER, SELF_TEST = "tokenizer.json", "self_test.npz"
TOOLS = ("numpy", "onnx", "timm", "torch", "transformers")


def export_bundle(
    source: Source,
    path: Path,
    *,
    accept: Accept,
    force: bool = False,
    finish: Finish | None = None,
    status: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Writes a bundle; it appears at `path` only when every graph has been accepted.

    Args:
        source: The reference, its tokenizer, and what they were read from.
        path: Where to.
        accept: Checks each graph before the next is written.
        force: Whether to replace a bundle that is there.
        finish: See `BundleWriter.commit`.
        status: Told what is going on.

    Raises:
        ParityError: A graph does not compute what the reference computes.
        UsageError: Something is at `path` already.
        EnvironmentProblem: The disk is full.
    """
    from fmmt_deploy.reference.loading import parts_of_model, save_weights

    model, tokenizer = source.model, source.tokenizer
    architecture = model.architecture
    needed = 4 * sum(parameter.numel() for parameter in model.parameters())
    with write_bundle(path, force, needed_bytes=needed) as writer:
        stages = self_test_stages(model)
        graphs: dict[GraphName, Mapping[Any, str]] = {}
        for name, part in parts_of_model(model).items():
            status(f"{name}: writing weights and graph")
            file = writer.place(f"{GRAPH_FOLDER}/{name}.onnx")
            weights = file.with_suffix(".safetensors")
            save_weights(part, weights)
            graph = graph_from_weights(architecture, name, WeightFile.open(weights), model.tau, model.threshold)
            onnx.save(graph, file)
            onnx.checker.check_model(str(file), full_check=True)
            status(f"{name}: comparing with PyTorch")
            accept(name, file, stages[name])
            graphs[name] = {"fp32": f"{GRAPH_FOLDER}/{name}.onnx"}
        write_self_test(writer.place(SELF_TEST), stages)
        if tokenizer is not None:
            writer.add_bytes(TOKENIZER, tokenizer.encode())
        manifest = Manifest(
            architecture=architecture,
            tau=model.tau,
            threshold=model.threshold,
            graphs=graphs,
            tokenizer=None if tokenizer is None else TOKENIZER,
            self_test=SELF_TEST,
            source=SourceEntry(dict(source.sha256)),
            tools={tool: version(tool) for tool in TOOLS},
        )
        status("hashing")
        return writer.commit(manifest, finish=finish)


def graph_from_weights(
    architecture: Architecture, name: GraphName, weights: WeightFile, tau: float, threshold: float
) -> onnx.ModelProto:
    """Builds one graph of a model on a file of its weights."""
    sizes = architecture
    if name == "swin" and sizes.swin is not None:
        return swin_graph(sizes.swin, weights)
    if name == "plm" and sizes.plm is not None and sizes.fusion is not None:
        return plm_graph(sizes.plm, sizes.fusion.hidden_size, weights)
    if name == "fusion" and sizes.fusion is not None:
        return fusion_graph(sizes.fusion, tau, threshold, weights)
    if name == "unimodal" and sizes.unimodal is not None:
        return unimodal_graph(sizes.unimodal, weights)
    raise ValueError(f"a model of {architecture.modality} has no graph {name}")


def self_test_stages(model: ReferenceModel, seed: int = 0) -> dict[GraphName, Stage]:
    """Runs the reference on inputs that exercise every branch; each graph gets the reference's own inputs."""
    rng, sizes = np.random.default_rng(seed), model.architecture
    stages: dict[GraphName, Stage] = {}
    if sizes.unimodal is not None:
        stages["unimodal"] = _stage(model, "unimodal", sample_vision(rng, sizes.unimodal))
    if sizes.swin is not None and sizes.plm is not None and sizes.fusion is not None:
        stages["swin"] = _stage(model, "swin", sample_faces(rng, 3))
        lengths = (24, min(96, sizes.plm.max_tokens))
        stages["plm"] = _stage(model, "plm", sample_dialogues(rng, sizes.plm, lengths))
        states, logits = stages["plm"].outputs["token_states"], stages["swin"].outputs["face_logits"]
        stages["fusion"] = _stage(model, "fusion", sample_utterances(rng, sizes.fusion, states, logits))
    return stages


def _stage(model: ReferenceModel, graph: GraphName, inputs: Mapping[str, NDArray[Any]]) -> Stage:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    outputs = {name: tensor.numpy() for name, tensor in model.run(graph, tensors).items()}
    return Stage(dict(inputs), outputs)


def planned_files(architecture: Architecture) -> tuple[str, ...]:
    """What `export_bundle` would write, for a dry run."""
    graphs = [f"{GRAPH_FOLDER}/{name}{end}" for name in graphs_of(architecture) for end in (".onnx", ".safetensors")]
    return (*graphs, SELF_TEST, *([TOKENIZER] if architecture.plm else []), "manifest.json")
