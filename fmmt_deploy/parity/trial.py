"""TensorRT's engines held against themselves before they are trusted: the verdict goes beside each engine's file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.cache import EngineFile
from fmmt_deploy.engines.tensorrt.device import Device
from fmmt_deploy.engines.tensorrt.flavour import FlavourName, import_flavour
from fmmt_deploy.engines.tensorrt.load import engines_from_plans, find_engines, open_device
from fmmt_deploy.engines.tensorrt.trust import write_verdict
from fmmt_deploy.parity.consistency import self_consistency
from fmmt_deploy.parity.consistency_report import ConsistencyReport
from fmmt_deploy.types import GraphName

__all__ = ["try_engine_files", "try_engines"]


def try_engines(
    bundle: Bundle, flavour: FlavourName, precisions: Precisions, cache: Path | None = None
) -> ConsistencyReport:
    """Holds a bundle's engines against themselves, those that `fmmt run` would take; see `try_engine_files`.

    Raises:
        EnvironmentProblem: There is no GPU, or this TensorRT is not installed.
        BundleError: The bundle has no engine that runs here, or no self-test.
    """
    device = open_device()
    version = str(import_flavour(flavour).__version__)
    return try_engine_files(bundle, find_engines(bundle, flavour, precisions, device.gpu, version, cache), device)


def try_engine_files(bundle: Bundle, files: Mapping[GraphName, EngineFile], device: Device) -> ConsistencyReport:
    """Holds engines against themselves, and writes the verdict on each beside its file.

    Args:
        bundle: The bundle they were built from.
        files: The engines, of all its graphs or of some; all of one TensorRT.
        device: Where they run; closed afterwards.

    Raises:
        BundleError: TensorRT refuses an engine, or the bundle has no self-test.
        EnvironmentProblem: The GPU has no memory for them, or a verdict can't be written.
    """
    stages = self_test_of(bundle)
    flavour = next(iter(files.values())).about.key.flavour
    precisions = {graph: file.about.key.precision for graph, file in files.items()}
    plans = {graph: (file.plan, file.path) for graph, file in files.items()}
    gpu = device.gpu.name
    with engines_from_plans(flavour, import_flavour(flavour), device, plans, precisions) as engines:
        report = self_consistency(bundle.manifest.architecture, engines, stages)
    for graph, file in files.items():
        checks = [check for check in report.checks if check.graph == graph]
        write_verdict(
            file.path,
            checks=tuple(check.name for check in checks),
            failed=tuple(check.name for check in checks if not check.passed),
            gpu=gpu,
            version=file.about.key.version,
            # of the very plan that was tried: should the file hold another by now, this says nothing about that
            engine_sha256=hashlib.sha256(file.plan).hexdigest(),
        )
    return report
