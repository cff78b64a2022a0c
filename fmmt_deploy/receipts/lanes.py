"""Which engines in which precisions a bundle's receipts are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions, float32, precisions_from_option, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import UsageError
from fmmt_deploy.receipts.record import Receipt

__all__ = ["FLAVOURS", "Lane", "lanes_of", "lanes_of_receipt", "other_runtime"]

FLAVOURS = {
    "trt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "trt-rtx": ("tensorrt-rtx-cu13-bindings",),
}
"""TensorRT's engine kinds, and the packages that bring them."""

_RUNTIMES = {"ort": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",), "emulated": ("torch",), **FLAVOURS}

_ENGINE = re.compile(r"[a-z][a-z0-9-]*")
"""It goes into commands that are shown to be run: a stranger's receipt must not put more into them."""

_ENGINES = ("build", "parity", "eval", "bench")
"""Commands that are about engines in precisions."""


@dataclass(frozen=True)
class Lane:
    """An engine in precisions.

    Attributes:
        engine: Its kind.
        precisions: Of every graph.
    """

    engine: str
    precisions: Precisions

    @property
    def text(self) -> str:
        """The precisions as `--precision` takes them."""
        return text_from_precisions(self.precisions)

    @property
    def name(self) -> str:
        """`ort fp32`."""
        return f"{self.engine} {self.text}"

    @property
    def is_for_production(self) -> bool:
        """Whether gaps in its evidence matter: PyTorch and the emulation are what others are held against."""
        return self.engine not in ("torch", "torch-cuda", "torch-compiled", "emulated")


def lanes_of(bundle: Bundle, receipts: Iterable[Receipt]) -> tuple[Lane, ...]:
    """Every lane that a receipt is about, in the order of the first; ONNX Runtime in float32 where there is none."""
    found = {lane.name: lane for receipt in receipts for lane in lanes_of_receipt(bundle, receipt)}
    if not any(lane.is_for_production for lane in found.values()):
        lane = Lane("ort", float32(graphs_of(bundle.manifest.architecture)))
        found[lane.name] = lane
    return tuple(found.values())


def lanes_of_receipt(bundle: Bundle, receipt: Receipt) -> Iterator[Lane]:
    """The engines in precisions that a receipt is about; more than one of a benchmark."""
    if receipt.command not in _ENGINES:
        return
    settings = {name: setting.value for name, setting in receipt.settings.items()}
    engines, precision = settings.get("engine"), settings.get("precision")
    for text in engines if isinstance(engines, list) else [engines or "ort"]:
        engine, _, own = str(text).partition(":")
        if not _ENGINE.fullmatch(engine):
            continue
        try:
            asked = own or (precision if isinstance(precision, str) else "fp32")
            yield Lane(engine, precisions_from_option(asked, bundle.manifest.architecture))
        except UsageError:  # of another fmmt-deploy, with precisions of its own
            continue


def other_runtime(lane: Lane, receipt: Receipt) -> str:
    """What of the lane's software is of another version here than it was; "" if all is the same, or not installed."""
    family = lane.engine if lane.engine in _RUNTIMES else lane.engine.partition("-")[0]  # of torch-cuda, torch
    for name in _RUNTIMES.get(family, ()):
        try:
            here = version(name)
        except PackageNotFoundError:
            continue
        if name in receipt.tools and receipt.tools[name] != here:
            return f"{name} {receipt.tools[name]}, here is {here}"
    return ""
