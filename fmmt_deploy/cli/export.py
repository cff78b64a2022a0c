"""`fmmt export`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import DryRun, Force, JsonOutput, NoReceipt, Quiet, Threads
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

    from fmmt_deploy.bundle.selftest import Stage
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.export.source import Source
    from fmmt_deploy.receipts.record import Hashed
    from fmmt_deploy.types import GraphName

__all__ = ["export"]


def export(
    context: typer.Context,
    ckpt: Annotated[
        Path, typer.Option("--ckpt", metavar="PATH", help="A checkpoint (.pt, .safetensors), or a folder of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the bundle goes.")],
    swin_ckpt: Annotated[
        Path | None, typer.Option("--swin-ckpt", metavar="PATH", help="The face model, where --ckpt does not hold it.")
    ] = None,
    plm_dir: Annotated[
        Path | None,
        typer.Option("--plm-dir", metavar="DIR", help="The language model's folder: tokenizer and config.json."),
    ] = None,
    tau: Annotated[
        float | None, typer.Option("--tau", help="Temperature of the face probabilities; default the run's, or 1.0.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Confidence a face must exceed; default the run's, or 0.2.")
    ] = None,
    threads: Threads = 0,
    force: Force = False,
    dry_run: DryRun = False,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Turns a checkpoint into a bundle of ONNX graphs, each checked against PyTorch before it is accepted.

    Example: fmmt export --ckpt multimodal_T+A+V_RoBERTa.pt --swin-ckpt best_swin_RoBERTa.pt --plm-dir roberta-large -o
    my-bundle
    """
    from fmmt_deploy.bundle.replacing import check_replaceable
    from fmmt_deploy.cli.recording import Recording
    from fmmt_deploy.engines.load import default_threads
    from fmmt_deploy.engines.ort.load import engine_from_onnx, import_onnxruntime
    from fmmt_deploy.export.export import export_bundle, planned_files
    from fmmt_deploy.export.source import read_source
    from fmmt_deploy.parity.run import accept_graph

    def accept(graph: GraphName, path: Path, stage: Stage) -> None:
        engine = engine_from_onnx(graph, path, threads or default_threads())
        accept_graph(graph, engine, stage)
        engine.close()

    shown = Output("export", as_json, quiet)
    recording = Recording(context, shown, out, wanted=not (dry_run or no_receipt), making=True)
    check_replaceable(out, force)
    import_onnxruntime()
    shown.status(f"reading {ckpt}" + (f" and {swin_ckpt}" if swin_ckpt else ""))
    source = read_source(ckpt, swin_ckpt, plm_dir, tau, threshold)
    settings = {"tau": source.model.tau, "threshold": source.model.threshold}
    if dry_run:
        files = planned_files(source.model.architecture)
        planned = {"dry_run": True, "path": out, "files": files, **settings}
        shown.result(planned, Table(f"would write {out}", ("file",), [(name,) for name in files]))
        return

    def document(bundle: Bundle) -> dict[str, object]:
        graphs = bundle.manifest.graphs
        return {"dry_run": False, "path": bundle.path, "size_bytes": _size(bundle), "graphs": graphs, **settings}

    finish = recording.into_new(document, inputs=_inputs(source, ckpt))
    bundle = export_bundle(source, out, accept=accept, force=force, finish=finish, status=shown.status)
    rows = [(graph, files["fp32"], "accepted") for graph, files in bundle.manifest.graphs.items()]
    shown.result(
        {**document(bundle), "receipt": recording.path},
        Table(f"wrote {bundle.path}, {readable_bytes(_size(bundle))}", ("graph", "file", "against PyTorch"), rows),
    )


def _size(bundle: Bundle) -> int:
    return sum(entry.size_bytes for entry in bundle.manifest.files.values())


def _inputs(source: Source, ckpt: Path) -> Mapping[str, Hashed]:
    """Every file of the checkpoint; of a training's folder also what tells how it went."""
    from fmmt_deploy.bundle.integrity import hash_file
    from fmmt_deploy.receipts.record import Hashed
    from fmmt_deploy.training.card import CARD
    from fmmt_deploy.training.folder import EVALUATION, SETTINGS

    found = {name: Hashed(digest, "checkpoint") for name, digest in source.sha256.items()}
    told = [ckpt / name for name in (SETTINGS, CARD, EVALUATION)]
    return found | {path.name: Hashed(hash_file(path), "of its training") for path in told if path.is_file()}
