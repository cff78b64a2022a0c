"""`fmmt build`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import BundlePath, DryRun, EngineCache, Force, JsonOutput, NoReceipt, PrecisionText, Quiet
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fmmt_deploy.bundle.manifest import Precision
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.calibration.requirements import Requirement
    from fmmt_deploy.engines.tensorrt.cache import EngineKey
    from fmmt_deploy.engines.tensorrt.gpu import Gpu
    from fmmt_deploy.engines.tensorrt.obtain import Obtained
    from fmmt_deploy.errors import PrecisionError
    from fmmt_deploy.parity.consistency_report import ConsistencyReport
    from fmmt_deploy.types import GraphName

__all__ = ["build"]


def build(
    context: typer.Context,
    bundle: BundlePath,
    engine: Annotated[Literal["trt", "trt-rtx"], typer.Option("--engine", help="TensorRT, or TensorRT-RTX.")],
    precision: PrecisionText = "fp32",
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="Which sizes engines accept: a TOML, see engines/README.md."),
    ] = None,
    graph: Annotated[
        list[str] | None, typer.Option("--graph", help="Only this graph; may be given several times.")
    ] = None,
    opt_level: Annotated[
        int, typer.Option("--opt-level", min=0, max=5, help="How hard to optimise: 3 to develop, 5 to release.")
    ] = 3,
    workspace: Annotated[
        float, typer.Option("--workspace", min=0, max=1e6, help="GB a layer may use while it runs; 0: what there is.")
    ] = 0.0,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="TYPE>=SHARE", help="Ends with 9 if less of a graph's work is of that type."),
    ] = None,
    cache: EngineCache = None,
    force: Force = False,
    dry_run: DryRun = False,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Builds engines of a bundle's graphs, or finds them in the cache.

    Example: fmmt build -b my-bundle --engine trt --precision swin=fp16,plm=fp16 --profile engines/l4.toml --opt-level 5
    """
    from fmmt_deploy.bundle.precisions import precisions_from_option
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.calibration.requirements import requirement_from_option
    from fmmt_deploy.cli.recording import Recording, engine_subjects, file_input, graph_subjects
    from fmmt_deploy.engines.tensorrt.cache import engine_folder
    from fmmt_deploy.engines.tensorrt.flavour import import_flavour
    from fmmt_deploy.engines.tensorrt.gpu import current_gpu
    from fmmt_deploy.engines.tensorrt.obtain import engine_key
    from fmmt_deploy.engines.tensorrt.options import BuildOptions
    from fmmt_deploy.engines.tensorrt.profiles import default_profiles, read_profiles
    from fmmt_deploy.errors import ParityError

    shown = Output("build", as_json, quiet)
    recording = Recording(context, shown, bundle, wanted=not (dry_run or no_receipt))
    requirements = [requirement_from_option(text) for text in require or []]
    import_flavour(engine)
    opened = Bundle.open(bundle)
    architecture = opened.manifest.architecture
    precisions = _chosen(precisions_from_option(precision, architecture), graph)
    profiles = default_profiles(architecture) if profile is None else read_profiles(profile, architecture)
    options = BuildOptions(optimization_level=opt_level, workspace_bytes=int(workspace * 1e9))
    gpu, folder = current_gpu(), engine_folder(opened, cache)
    keys = [engine_key(opened, name, each, profiles, options, engine, gpu) for name, each in precisions.items()]
    _check_requirements(opened, keys, requirements)
    if dry_run:
        _show_plan(shown, opened, keys, folder, profiles.source, force)
        return
    obtained = [_obtained(shown, opened, key, folder, force) for key in keys]
    missed = _missed(obtained, requirements)
    report = None if gpu is None or missed else _tried(shown, opened, obtained)
    failed = missed is not None or (report is not None and not report.passed)
    document = _document(obtained, folder, gpu, report)
    recording.write(
        opened,
        document,
        verdict="failed" if failed else "" if report is None else "passed",
        exit_code=missed.exit_code if missed else ParityError.exit_code if failed else 0,
        subjects=graph_subjects(opened, precisions),
        inputs=file_input(profile, "profile"),
        outputs=engine_subjects(opened, [each.file for each in obtained]),
    )
    if missed is not None:
        raise missed
    _show(shown, {**document, "receipt": recording.path}, obtained, folder, report)
    if report is not None:
        report.raise_unless_passed()


def _chosen(precisions: Mapping[GraphName, Precision], graphs: Sequence[str] | None) -> dict[GraphName, Precision]:
    """Those of the graphs that were named, or all."""
    from fmmt_deploy.errors import UsageError

    if unknown := sorted(set(graphs or ()) - set(precisions)):
        raise UsageError(
            f"--graph {unknown[0]}: this model has no such graph.", fix=f"Its graphs are {', '.join(precisions)}."
        )
    return {name: precision for name, precision in precisions.items() if not graphs or name in graphs}


def _check_requirements(bundle: Bundle, keys: Sequence[EngineKey], requirements: Sequence[Requirement]) -> None:
    """Before anything is built: what the graphs ask for."""
    from fmmt_deploy.bundle.products import flops_share, products_of
    from fmmt_deploy.calibration.requirements import check_requirement
    from fmmt_deploy.engines.tensorrt.profiles import usual_sizes

    for requirement in requirements:
        for key in [key for key in keys if key.precision == requirement.precision] or keys:
            path = bundle.graph(key.graph, key.precision)
            shares = flops_share(products_of(path, usual_sizes(key.profiles[0])))
            check_requirement(requirement, shares, f"{key.graph} {key.precision}")


def _missed(obtained: Sequence[Obtained], requirements: Sequence[Requirement]) -> PrecisionError | None:
    """Afterwards: what the engines' own layers tell, where they do; a product they don't tell of counts as missing."""
    from fmmt_deploy.calibration.requirements import check_requirement
    from fmmt_deploy.errors import PrecisionError

    for requirement in requirements:
        for about in (each.file.about for each in obtained):
            if about.realised is not None and about.key.precision == requirement.precision:
                what = f"the engine of {about.key.graph} {about.key.precision}"
                try:
                    check_requirement(requirement, about.realised.flops_share, what)
                except PrecisionError as error:  # not yet: what was built is there, and gets its receipt
                    return error
    return None


def _obtained(shown: Output, bundle: Bundle, key: EngineKey, folder: Path, force: bool) -> Obtained:
    from fmmt_deploy.engines.tensorrt.obtain import obtain_engine

    with shown.phases(f"{key.graph} {key.precision}") as tell:
        obtained = obtain_engine(bundle, key, folder, force, tell)
    for reason in obtained.instead_of:
        shown.status(reason)
    how = "found" if obtained.plan is None else f"built in {obtained.plan.seconds:.1f} s"
    shown.status(f"{key.graph} {key.precision}: {how}")
    return obtained


def _tried(shown: Output, bundle: Bundle, obtained: Sequence[Obtained]) -> ConsistencyReport:
    """Runs the engines before anybody trusts them: do they agree with themselves?"""
    from fmmt_deploy.engines.tensorrt.load import open_device
    from fmmt_deploy.parity.trial import try_engine_files

    shown.status("holding the engines against themselves")
    return try_engine_files(bundle, {each.file.about.key.graph: each.file for each in obtained}, open_device())


def _document(
    obtained: Sequence[Obtained], folder: Path, gpu: Gpu | None, report: ConsistencyReport | None
) -> dict[str, object]:
    engines = [
        {
            "graph": each.file.about.key.graph,
            "precision": each.file.about.key.precision,
            "path": each.file.path,
            "built": each.plan is not None,
            "size_bytes": each.file.plan_bytes,
            "seconds": each.file.about.build_seconds,
            "flops_share": each.file.about.flops_share,
            "realised": each.file.about.realised,
            "key": each.file.about.key,
            "layers": None if each.plan is None else each.plan.network.layers,
            "warnings": () if each.plan is None else each.plan.warnings,
            "instead_of": each.instead_of,
        }
        for each in obtained
    ]
    key = obtained[0].file.about.key
    document = {"dry_run": False, "folder": folder, "flavour": key.flavour, "version": key.version, "gpu": gpu}
    return document | {"engines": engines, "self_consistency": None if report is None else report.to_json()}


def _show(
    shown: Output,
    document: Mapping[str, object],
    obtained: Sequence[Obtained],
    folder: Path,
    report: ConsistencyReport | None,
) -> None:
    rows = []
    for each in obtained:
        about = each.file.about
        told = about.realised
        rows.append(
            (
                about.key.graph,
                about.key.precision,
                each.file.path.name,
                readable_bytes(each.file.plan_bytes),
                f"{about.build_seconds:.1f}",
                "cached" if each.plan is None else "built",
                _shares(about.flops_share if told is None else told.flops_share),
                "not told" if told is None else f"{told.fused_products} of {told.attention_products}",
            )
        )
    heads = ("graph", "precision", "file", "size", "seconds", "", "FLOPs by type", "attention fused")
    keys = [each.file.about.key for each in obtained]
    title = f"engines in {folder}, by {keys[0].flavour} {keys[0].version}, for {_targets(keys)}"
    tried = "self-consistency not run: no GPU is here, and nothing uses engines before they passed `fmmt parity --self`"
    shown.result(document, Table(title, heads, rows), tried if report is None else report.summary())


def _show_plan(
    shown: Output, bundle: Bundle, keys: Sequence[EngineKey], folder: Path, source: str, force: bool
) -> None:
    from fmmt_deploy.engines.tensorrt.cache import EngineFile, engine_path, find_engine
    from fmmt_deploy.engines.tensorrt.estimate import estimate_from_onnx
    from fmmt_deploy.engines.tensorrt.profiles import shapes_of

    engines, rows, shapes = [], [], []
    for key in keys:
        path = bundle.graph(key.graph, key.precision)
        needed = estimate_from_onnx(path, key.profiles)
        found = find_engine(folder, key)
        cached = isinstance(found, EngineFile) and not force
        reasons = () if isinstance(found, EngineFile) else found.reasons
        inputs = [shapes_of(path, profile) for profile in key.profiles]
        engines.append(
            {
                "graph": key.graph,
                "precision": key.precision,
                "path": engine_path(folder, key),
                "cached": cached,
                "key": key,
                "digest": key.digest,
                "shapes": inputs,
                "needed": needed,
                "not_used": reasons,
            }
        )
        memory = (readable_bytes(needed.weight_bytes), readable_bytes(needed.activation_bytes))
        what = "cached" if cached else "would be built"
        rows.append((key.graph, key.precision, engine_path(folder, key).name, *memory, what))
        for number, profile in enumerate(inputs):
            shapes += [(key.graph, number, name, *map(_shape, each)) for name, each in profile.items()]
        for reason in reasons:
            shown.status(reason)
    key = keys[0]
    document = {"dry_run": True, "folder": folder, "flavour": key.flavour, "version": key.version, "profile": source}
    title = f"engines in {folder}, by {key.flavour} {key.version}, for {_targets(keys)}"
    shown.result(
        document | {"engines": engines},
        Table(title, ("graph", "precision", "file", "weights", "activations ≥", ""), rows),
        Table(f"shapes, by {source}", ("graph", "profile", "input", "smallest", "usual", "largest"), shapes),
    )


def _targets(keys: Sequence[EngineKey]) -> str:
    """What engines are for: without a GPU those in FP8 are for fewer kinds of them than others."""
    graphs: dict[str, list[str]] = {}
    for key in keys:
        graphs.setdefault(str(key.target), []).append(key.graph)
    if len(graphs) == 1:
        return next(iter(graphs))
    return "; ".join(f"{target} ({', '.join(names)})" for target, names in graphs.items())


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _shares(shares: Mapping[Precision, float]) -> str:
    """The largest first; what would be shown as nothing is left out."""
    largest = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{precision} {share:.1%}" for precision, share in largest if share >= 0.0005)
