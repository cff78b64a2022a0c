"""ONNX Runtime's GPU providers: which package has each, and the options it is opened with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.errors import EnvironmentProblem, PrecisionError

if TYPE_CHECKING:
    from fmmt_deploy.engines.tensorrt.profiles import Shapes

__all__ = [
    "PROVIDERS",
    "Provider",
    "ProviderKind",
    "check_precision",
    "plugin_devices",
    "provider_of",
    "provider_options",
    "require_provider",
]

ProviderKind: TypeAlias = Literal["ort-cuda", "ort-trt", "ort-trt-rtx"]


@dataclass(frozen=True, slots=True)
class Provider:
    """A GPU provider of ONNX Runtime.

    Attributes:
        kind: The engine kind it is behind.
        name: What ONNX Runtime calls it.
        install: How to get it.
        plugin: The module that brings it, if it is not part of ONNX Runtime.
        also: A provider that takes what this one can't, on the same GPU.
    """

    kind: ProviderKind
    name: str
    install: str
    plugin: str | None = None
    also: str | None = None


_ALLOWED: Mapping[Precision, tuple[str, ...]] = {
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8-fp32": ("int8",),
    "int8": ("fp16", "int8"),
}
"""The types beside float32 that TensorRT must be allowed, by the graph's precision."""

_GPU_PACKAGE = "pip uninstall onnxruntime; pip install 'fmmt-deploy[gpu]'"

PROVIDERS: Mapping[ProviderKind, Provider] = {
    "ort-cuda": Provider("ort-cuda", "CUDAExecutionProvider", f"{_GPU_PACKAGE}, with CUDA and cuDNN."),
    "ort-trt": Provider(
        "ort-trt",
        "TensorrtExecutionProvider",
        f"{_GPU_PACKAGE}, with CUDA, cuDNN and the TensorRT that it was built for.",
        also="CUDAExecutionProvider",
    ),
    "ort-trt-rtx": Provider(
        "ort-trt-rtx",
        "NvTensorRTRTXExecutionProvider",
        "pip install 'fmmt-deploy[cpu]' onnxruntime-ep-nv-tensorrt-rtx",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}


def provider_of(kind: str) -> Provider | None:
    """The GPU provider behind an engine kind; None for the CPU's."""
    return next((provider for provider in PROVIDERS.values() if provider.kind == kind), None)


def require_provider(ort: Any, provider: Provider) -> None:
    """Makes sure that ONNX Runtime has a provider, before it is asked for: asked for in vain, it would take the CPU.

    Args:
        ort: The module `onnxruntime`.
        provider: What is needed; a plugin is registered.

    Raises:
        EnvironmentProblem: This ONNX Runtime does not have it, or it finds no GPU.
    """
    if provider.name in ort.get_available_providers():
        if hasattr(ort, "preload_dlls"):  # finds CUDA's libraries where pip put them, since 1.21; it prints
            with redirect_stdout(sys.stderr):
                ort.preload_dlls()
        return
    if provider.plugin is None:
        raise _missing(ort, provider, f"It has {', '.join(ort.get_available_providers())}.")
    try:
        plugin = importlib.import_module(provider.plugin)
    except ImportError as error:
        raise _missing(ort, provider, str(error)) from error
    if plugin.get_ep_name() not in {device.ep_name for device in ort.get_ep_devices()}:
        try:
            ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise _missing(ort, provider, str(error)) from error
    if not plugin_devices(ort, provider):
        raise EnvironmentProblem(
            f"{provider.name} finds no GPU that it supports.",
            fix="Use a machine with an NVIDIA RTX GPU and its driver.",
        )


def plugin_devices(ort: Any, provider: Provider) -> list[Any]:
    """The GPUs on which a plugin that was registered can run; none for a provider that is part of ONNX Runtime."""
    return [device for device in ort.get_ep_devices() if provider.plugin and device.ep_name == provider.name]


def check_precision(provider: Provider, precision: Precision) -> None:
    """Refuses what a provider would compute in another precision, slowly and without a word.

    Raises:
        PrecisionError: It has no 8-bit products of that kind.
    """
    if provider.kind == "ort-cuda" and precision in ("int8-fp32", "int8", "fp8"):
        why = "It would dequantise the operands, and multiply them in the type around them."
    elif provider.kind == "ort-trt" and precision == "fp8":
        why = "It has no option that would let TensorRT use FP8."
    else:
        return
    raise PrecisionError(
        f"--engine {provider.kind} has no products in {precision}.",
        why=why,
        fix="Use --engine trt or trt-rtx; or on a CPU --engine ort with int8-fp32.",
    )


def provider_options(
    provider: Provider, precision: Precision, shapes: Shapes | None, cache: Path | None
) -> dict[str, str]:
    """What a provider is opened with, so that it computes in the types of the graph.

    ONNX Runtime hands its TensorRT a weakly typed network: FP16 and INT8 must be allowed for a graph to keep what it
    has of them, and TF32 can't be forbidden there. TensorRT-RTX takes the graph's types as they are.

    Args:
        provider: Which one.
        precision: The graph's.
        shapes: For each input its smallest, usual and largest shape; None leaves them to the provider.
        cache: A folder for compiled engines, of this graph alone; None keeps none.
    """
    match provider.kind:
        case "ort-cuda":
            return {"device_id": "0", "use_tf32": "0"}
        case "ort-trt":
            options = {"device_id": "0", "trt_layer_norm_fp32_fallback": "1"}
            options |= {f"trt_{kind}_enable": "1" for kind in _ALLOWED.get(precision, ())}
            if cache is not None:
                options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
                options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(cache)}
            return options | _shape_options("trt", shapes)
        case "ort-trt-rtx":
            options = {"device_id": "0"}
            if cache is not None:
                options["nv_runtime_cache_path"] = str(cache)
            return options | _shape_options("nv", shapes)


def _shape_options(prefix: str, shapes: Shapes | None) -> dict[str, str]:
    """As `ids:1x2,mask:1x2`, for each of min, opt and max."""
    if shapes is None:
        return {}
    return {
        f"{prefix}_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, three[number]))}" for name, three in shapes.items()
        )
        for number, which in enumerate(("min", "opt", "max"))
    }


def _missing(ort: Any, provider: Provider, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"--engine {provider.kind} needs {provider.name}, which ONNX Runtime {ort.__version__} here does not have.",
        why=why,
        fix=provider.install,
    )
