"""Bundles with layers that float16 can't compute, though float32 answers as before: powers of two move about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.types import GraphName

TOO_LARGE = 2.0**17
"""What makes numbers around 1 overflow float16, and its inverse makes them subnormal there."""


def scaled(bundle: Bundle, out: Path, graph: GraphName, factors: Mapping[str, float]) -> Bundle:
    """A copy with some weights of a graph multiplied; all parts that a graph reads of a weight are."""
    constants = onnx.load(bundle.graph(graph), load_external_data=False).graph.initializer
    relative = f"graphs/fp32/{graph}.safetensors"
    data = bytearray((bundle.path / relative).read_bytes())
    done = set()
    for tensor in constants:
        name = tensor.name.split("[")[0]
        if name in factors:
            entry = {item.key: item.value for item in tensor.external_data}
            part = slice(int(entry["offset"]), int(entry["offset"]) + int(entry["length"]))
            data[part] = (np.frombuffer(data[part], np.float32) * np.float32(factors[name])).tobytes()
            done.add(name)
    assert done == set(factors)
    with extend_bundle(bundle, out, without=[relative]) as writer:
        writer.place(relative).write_bytes(data)
        return writer.commit(bundle.manifest)


def swollen(*pairs: tuple[str, str]) -> dict[str, float]:
    """Factors that swell what is between pairs of layers: the first's weight and bias, undone by the second's."""
    factors: dict[str, float] = {}
    for first, second in pairs:
        factors |= {f"{first}.weight": TOO_LARGE, f"{first}.bias": TOO_LARGE, f"{second}.weight": 1 / TOO_LARGE}
    return factors
