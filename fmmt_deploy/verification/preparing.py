"""The steps up to engines that have been shown to answer right."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median

from fmmt_deploy.benchmark.device import DeviceMatrixRate, copy_rate
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.calibrator import Calibrator
from fmmt_deploy.calibration.cast import cast_bundle, check_castable, plan_casts, shares_of
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.formats import EIGHT_BITS
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt.cache import engine_folder
from fmmt_deploy.engines.tensorrt.flavour import FLAVOURS, FlavourName, import_flavour, title
from fmmt_deploy.engines.tensorrt.gpu import current_gpu
from fmmt_deploy.engines.tensorrt.load import engines_from_bundle
from fmmt_deploy.engines.tensorrt.obtain import engine_key, obtain_engine
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profiles, default_profiles, read_profiles
from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.export.export import export_bundle
from fmmt_deploy.export.source import random_source
from fmmt_deploy.parity.run import cases_from_self_test, parity, recorded_engines
from fmmt_deploy.parity.trial import try_engines
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Result

__all__ = ["agrees_with_itself", "build", "cast", "compare", "compare_reference", "environment", "make_model", "rates"]

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "timm", "transformers", "cuda-bindings")
SAMPLES = 5


def environment(context: Context) -> Result:
    """What this machine has."""
    versions = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    tensorrts: dict[str, str] = {}
    for flavour in FLAVOURS:
        try:
            tensorrts[flavour] = str(import_flavour(flavour).__version__)
        except EnvironmentProblem as error:
            tensorrts[flavour] = f"none: {error.what}"
    gpu = current_gpu()
    there = [f"{title(name)} {tensorrts[name]}" for name in FLAVOURS if not tensorrts[name].startswith("none")]
    return {
        "summary": "; ".join([gpu.name if gpu else "no GPU", f"{context.threads} cores", *there]),
        "gpu": None if gpu is None else asdict(gpu),
        "tensorrt": tensorrts,
        "packages": versions,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": context.threads,
    }


def rates(context: Context) -> Result:
    """How fast the GPU multiplies and copies."""
    del context
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    tflops = {p: median(rate.sample() for _ in range(SAMPLES)) for p in precisions for rate in [DeviceMatrixRate(p)]}
    copied = copy_rate()
    text = ", ".join(f"{precision} {rate:.0f}" for precision, rate in tflops.items())
    return {"summary": f"{text} TFLOP/s, {copied:.0f} GB/s copied", "matrix_tflops": tflops, "copy_gb_per_s": copied}


def make_model(context: Context) -> Result:
    """A model with random weights; nothing is accepted here, since the next steps hold all of it against PyTorch."""
    bundle = export_bundle(random_source(context.settings.model), context.bundle_path, accept=lambda *_: None)
    size = sum(entry.size_bytes for entry in bundle.manifest.files.values())
    return {"summary": f"{size / 1e9:.2f} GB", "size_bytes": size}


def cast(context: Context, precision: Precision) -> Result:
    """Typed graphs; they are accepted when their engines are."""
    bundle = context.bundle()
    asked = dict.fromkeys(graphs_of(context.architecture), precision)
    if precision in EIGHT_BITS:
        planned = _calibrated(context, bundle, asked)
    else:
        planned = plan_casts(bundle, check_castable(bundle, asked, force=False))
    cast_bundle(bundle, planned, accept=lambda *_: None)
    shares = {typed.graph: shares_of(typed) for typed in planned}
    text = ", ".join(f"{graph} {share.get(precision, 0.0):.1%}" for graph, share in shares.items())
    return {"summary": f"FLOPs in {precision}: {text}", "flops_share": shares}


def _calibrated(context: Context, bundle: Bundle, asked: Precisions) -> tuple[Draft, ...]:
    """On the self-test: weights are random, so ranges of real data would say no more."""
    cases = [case.by_graph() for case in cases_from_self_test(self_test_of(bundle))]
    settings = CalibrationSettings(method="mse", smooth=())
    calibrator = Calibrator(bundle, list(asked), lambda first: cases[first:], "self-test", settings, context.threads)
    drafts = tuple(draft_in(g, bundle.graph(g), p, (), calibrator(g, p)) for g, p in asked.items())
    calibrator.finish()
    return drafts


def build(context: Context, flavour: FlavourName, precision: Precision) -> Result:
    """Engines of all graphs."""
    bundle, settings = context.bundle(), context.settings
    options, gpu = BuildOptions(optimization_level=settings.optimization_level), current_gpu()
    engines, folder, profiles = {}, engine_folder(bundle), profiles_of(context)
    for graph in graphs_of(context.architecture):
        key = engine_key(bundle, graph, precision, profiles, options, flavour, gpu)
        about = obtain_engine(bundle, key, folder).file
        engines[graph] = {
            "seconds": about.about.build_seconds,
            "size_bytes": about.plan_bytes,
            "flops_share": about.about.flops_share,
            "version": about.about.key.version,
        }
    text = ", ".join(f"{graph} {found['seconds']:.1f} s" for graph, found in engines.items())
    return {"summary": text, "options": str(options), "profile": profiles.source, "engines": engines}


def agrees_with_itself(context: Context, flavour: FlavourName, precision: Precision) -> Result:
    """The gate that engines must pass before they are used."""
    report = try_engines(context.bundle(), flavour, dict.fromkeys(graphs_of(context.architecture), precision))
    report.raise_unless_passed()
    shaky = [graph for graph, same in report.deterministic.items() if not same]
    same = f"not the same bits in every run: {', '.join(shaky)}" if shaky else "the same bits in every run"
    return {"summary": f"{len(report.checks)} checks; {same}", "report": report.to_json()}


def compare_reference(context: Context) -> Result:
    """The reference on this card against what PyTorch answered on the CPU when the model was made."""
    stages = self_test_of(context.bundle())
    engines = context.engines(context.settings.reference)
    return _compared(context, recorded_engines(stages), engines)


def compare(context: Context, name: str) -> Result:
    """An engine against the reference on the same card."""
    reference = context.engines(context.settings.reference)
    with _untrusted(context, name) as engines:
        return _compared(context, reference, engines)


def _compared(context: Context, reference: Engines, engines: Engines) -> Result:
    stages = self_test_of(context.bundle())
    report = parity(context.architecture, reference, engines, cases_from_self_test(stages))
    report.raise_unless_passed()
    worst = {stage.name: max((tensor.max_abs for tensor in stage.tensors), default=0.0) for stage in report.stages}
    text = ", ".join(f"{stage} {error:.1e}" for stage, error in worst.items())
    return {"summary": f"largest differences {text}", "report": report.to_json()}


def profiles_of(context: Context) -> Profiles:
    """The profiles that engines are built for."""
    path: Path | None = context.settings.profile
    return default_profiles(context.architecture) if path is None else read_profiles(path, context.architecture)


@contextmanager
def _untrusted(context: Context, name: str) -> Iterator[Engines]:
    """TensorRT's engines even if they did not pass the gate: how they differ tells what is wrong with them."""
    choice = context.choice(name)
    context.asks(name)
    if choice.kind in FLAVOURS:
        with engines_from_bundle(context.bundle(), choice.kind, choice.precisions, trusted_only=False) as engines:
            yield engines
    else:
        yield context.engines(name)  # which others go on using
