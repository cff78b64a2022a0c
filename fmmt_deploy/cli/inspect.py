"""`fmmt inspect`."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import JsonOutput
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from fmmt_deploy.architecture import Context
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.engines.tensorrt.cache import EngineKey
    from fmmt_deploy.export.costs import GraphCost, Workload
    from fmmt_deploy.reference.checkpoints import Checkpoint

__all__ = ["inspect"]

Sizes = Mapping[str, Mapping[str, object]]
"""For each part of a model, its sizes by name."""


def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, or a checkpoint: a file or a folder.", show_default=False)],
    plm_dir: Annotated[
        Path | None,
        typer.Option("--plm-dir", metavar="DIR", help="The language model's folder, for a plain state dict."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of a dialogue, to tell costs.")] = 134,
    faces: Annotated[float, typer.Option("--faces", min=0, help="Faces of an utterance, likewise.")] = 10.0,
    utterances_per_dialogue: Annotated[
        float, typer.Option("--utterances-per-dialogue", min=1, help="They share the dialogue's encoding.")
    ] = 9.3,
    as_json: JsonOutput = False,
) -> None:
    """Says what is in a bundle or a checkpoint, after checking all of it, and what an utterance costs in a bundle.

    Example: fmmt inspect my-bundle --faces 50
    """
    from fmmt_deploy.bundle.manifest import MANIFEST_NAME

    output = Output("inspect", as_json)
    if (path / MANIFEST_NAME).is_file() or not path.exists():
        from fmmt_deploy.export.costs import Workload

        _inspect_bundle(path, Workload(tokens, faces, utterances_per_dialogue), output)
    else:
        _inspect_checkpoint(path, plm_dir, output)


def _inspect_bundle(path: Path, workload: Workload, output: Output) -> None:
    from dataclasses import asdict

    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.export.costs import costs_of_bundle

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    size = sum(entry.size_bytes for entry in manifest.files.values())
    sizes = {name: part for name, part in asdict(manifest.architecture).items() if isinstance(part, dict)}
    document: dict[str, object] = {
        "kind": "bundle",
        "path": path,
        "modality": manifest.architecture.modality,
        "size_bytes": size,
    }
    costs = costs_of_bundle(bundle, workload)
    engines, tables = _engines(bundle)
    calibrations, receipts = _calibrations(bundle)
    document |= {"workload": workload, "costs": costs, "manifest": asdict(manifest), "engines": engines}
    document |= {"calibrations": calibrations}
    output.result(document, *_bundle_parts(bundle, size, sizes), *receipts, *tables, _costs_table(costs, workload))


def _bundle_parts(bundle: Bundle, size: int, sizes: Sizes) -> list[Table]:
    manifest = bundle.manifest
    summary = [
        ("path", bundle.path),
        ("kind", f"bundle of schema {manifest.schema}, all hashes as recorded"),
        ("modality", manifest.architecture.modality),
        *_context(sizes, manifest.architecture.context),
        *_lengths(sizes),
        ("size on disk", readable_bytes(size)),
        ("emotions", ", ".join(manifest.emotions)),
        ("tau", manifest.tau),
        ("threshold", manifest.threshold),
        ("created", manifest.created),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
        *(("made from", f"{name}, SHA-256 {digest[:16]}…") for name, digest in manifest.source.checkpoints.items()),
    ]
    graphs = [(name, precision, file) for name, files in manifest.graphs.items() for precision, file in files.items()]
    files = [
        (name, readable_bytes(entry.size_bytes), f"{entry.sha256[:16]}…") for name, entry in manifest.files.items()
    ]
    return [
        Table("", (), summary),
        _sizes_table(sizes),
        Table("", ("graph", "precision", "file"), graphs),
        Table("", ("file", "size", "SHA-256"), files),
    ]


def _calibrations(bundle: Bundle) -> tuple[list[dict[str, object]], list[Table]]:
    """What the receipts of calibrations say; `fmmt verify` checks them."""
    from fmmt_deploy.calibration.audit import receipt_file
    from fmmt_deploy.json_values import JsonValueError, json_object_from_text

    documents: list[dict[str, object]] = []
    rows: list[tuple[object, ...]] = []
    for graph, files in bundle.manifest.graphs.items():
        for precision in files:
            path = bundle.path / receipt_file(graph, precision)
            if not path.is_file():
                continue
            try:
                found = json_object_from_text(path.read_text(encoding="utf-8"))
                coverage, warnings = found["coverage"], found["warnings"]
                if not (isinstance(coverage, dict) and isinstance(warnings, list)):
                    raise JsonValueError("coverage, warnings", "a table and a list", "something else")
                told = (coverage["source"], coverage["reading"]["split"], coverage["utterances"], found["created"])
            except (OSError, UnicodeDecodeError, JsonValueError, KeyError, TypeError) as error:
                documents.append({"graph": graph, "precision": precision, "problem": str(error)})
                rows.append((graph, precision, f"can't be read: {error}", "–", "–", "–", "–"))
                continue
            documents.append({"graph": graph, "precision": precision, "coverage": coverage, "warnings": warnings})
            rows.append((graph, precision, *told, len(warnings)))
    heads = ("graph", "precision", "calibrated on", "split", "utterances", "at", "warnings")
    return documents, [Table("", heads, rows)] if rows else []


def _engines(bundle: Bundle) -> tuple[list[dict[str, object]], list[Table]]:
    """What the engine files of a bundle say of themselves; their plans are neither read nor checked."""
    from fmmt_deploy.engines.tensorrt.cache import FOLDER, list_engines
    from fmmt_deploy.engines.tensorrt.trust import read_verdict

    documents, rows = [], []
    for path, about in list_engines(bundle.path / FOLDER):
        size = path.stat().st_size
        document: dict[str, object] = {"path": path, "size_bytes": size}
        if isinstance(about, str):
            document["problem"], told = about, ("–", "–", about)
        else:
            verdict, ours = read_verdict(path), _is_of(bundle, about.key)
            document |= {"about": about, "of_this_bundle": ours, "self_consistency": verdict}
            state = "not tried" if verdict is None else f"{'passed' if verdict.passed else 'FAILED'} on {verdict.gpu}"
            target = about.key.target
            machine = target.gpu or ", ".join(target.compute_capabilities)
            told = (f"{about.key.flavour} {about.key.version}", machine, state if ours else "of another graph")
        documents.append(document)
        rows.append((path.name, readable_bytes(size), *told))
    heads = ("engine", "size", "by", "for", "self-consistency")
    return documents, [Table("", heads, rows)] if rows else []


def _is_of(bundle: Bundle, key: EngineKey) -> bool:
    from fmmt_deploy.engines.tensorrt.cache import graph_sha256

    has = key.precision in bundle.manifest.graphs.get(key.graph, {})
    return has and graph_sha256(bundle, key.graph, key.precision) == key.graph_sha256


def _costs_table(costs: Sequence[GraphCost], workload: Workload) -> Table:
    """Per graph, and the sum of each graph's most precise form, which is what runs by default."""
    first = {cost.graph: cost for cost in reversed(costs)}.values()
    rows = [
        (
            cost.graph,
            cost.precision,
            readable_bytes(cost.weight_bytes),
            f"{cost.flops / 1e9:.3f}",
            cost.unit,
            f"{cost.flops_per_utterance / 1e9:.3f}",
            readable_bytes(round(cost.input_bytes_per_utterance)),
        )
        for cost in costs
    ]
    total = (
        "together",
        "",
        readable_bytes(sum(cost.weight_bytes for cost in first)),
        "",
        "",
        f"{sum(cost.flops_per_utterance for cost in first) / 1e9:.3f}",
        readable_bytes(round(sum(cost.input_bytes_per_utterance for cost in first))),
    )
    title = (
        f"Cost of an utterance with {workload.faces:g} faces, in a dialogue of {workload.tokens} tokens that "
        f"{workload.utterances_per_dialogue:g} utterances share"
    )
    heads = ("graph", "precision", "weights", "GFLOP", "per", "GFLOP/utterance", "input/utterance")
    return Table(title, heads, [*rows, total])


def _inspect_checkpoint(path: Path, plm_dir: Path | None, output: Output) -> None:
    from dataclasses import asdict

    from fmmt_deploy.reference.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(path, plm_dir)
    sizes = {str(name): asdict(part) for name, part in checkpoint.sizes.items()}
    weights = [
        {"part": name, "tensors": len(tensors), "parameters": sum(tensor.size for tensor in tensors.values())}
        for name, tensors in checkpoint.parts.items()
    ]
    document: dict[str, object] = {"kind": "checkpoint", "path": path, "modality": _modality(checkpoint)}
    document |= {
        "context": checkpoint.context,
        "parts": weights,
        "sizes": sizes,
        "sha256": checkpoint.sha256,
        "settings": checkpoint.settings,
    }
    summary = [
        ("path", path),
        ("kind", "checkpoint of " + ", ".join(checkpoint.parts)),
        ("modality", document["modality"]),
        *_context(sizes, checkpoint.context),
        *_lengths(sizes),
        *checkpoint.settings.items(),
        *(("file", f"{name}, SHA-256 {digest[:16]}…") for name, digest in checkpoint.sha256.items()),
    ]
    parts = Table("", ("part", "tensors", "parameters"), [list(row.values()) for row in weights])
    output.result(document, Table("", (), summary), parts, _sizes_table(sizes))


def _context(sizes: Sizes, context: Context) -> list[tuple[str, str]]:
    """What a model of text reads an utterance with."""
    turns = {"dialogue": "all turns of its dialogue", "past": "the turns up to it, none of the later ones"}
    return [("context", turns[context])] if "plm" in sizes else []


def _modality(checkpoint: Checkpoint) -> str:
    return "V" if "unimodal" in checkpoint.sizes else "T+A+V"


def _lengths(sizes: Sizes) -> list[tuple[str, object]]:
    """A and V, which decide what data fit."""
    part = sizes.get("fusion") or sizes.get("unimodal") or {}
    names = (("A (audio positions)", "audio_length"), ("V (vision positions)", "vision_length"))
    return [(shown, part[name]) for shown, name in names if name in part]


def _sizes_table(sizes: Sizes) -> Table:
    rows = [
        (part, ", ".join(f"{name} {_shown(value)}" for name, value in values.items())) for part, values in sizes.items()
    ]
    return Table("", ("part", "sizes"), rows)


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
