"""Running `fmmt calibrate` on the demo's dialogues."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.store import Bundle
from tests.cli.running import exit_code

Bundles = Callable[[str], Bundle]
SMALL = ("--split", "train", "--dialogues", "3", "--allow-small", "--threads", "1")
"""Enough to see everything, and fast."""


def calibrate(bundle: Path, data: Path, *arguments: str) -> int:
    return exit_code("calibrate", "-b", str(bundle), "--data", str(data), *arguments)


def calibrated(bundle: Path, data: Path, *arguments: str) -> dict[str, Any]:
    """What `fmmt calibrate --json` prints."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert calibrate(bundle, data, *arguments, "--json", "-q") == 0
    found = json.loads(shown.getvalue())
    assert isinstance(found, dict)
    return found


def graph_bytes(bundle: Path, precision: str) -> dict[str, bytes]:
    """The files of a precision's graphs and weights, by name."""
    return {path.name: path.read_bytes() for path in (bundle / "graphs" / precision).iterdir()}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with what changes when it is written."""
    found = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def beside(bundle: Path) -> list[str]:
    """What is in the bundle's folder besides it."""
    return sorted(path.name for path in bundle.parent.iterdir() if path != bundle)


def with_outliers(bundle: Path, layers: tuple[int, ...]) -> Bundle:
    """A vision-only bundle whose attention has one column that is 4096 times the others, which float32 does not mind.

    The values' first column is multiplied, and what the next product makes of it divided; with one scale for all, the
    other columns are rounded away.
    """
    opened = Bundle.open(bundle)
    tensors = {t.name: t for t in onnx.load(opened.graph("unimodal"), load_external_data=False).graph.initializer}
    relative = "graphs/fp32/unimodal.safetensors"
    data = bytearray((bundle / relative).read_bytes())
    for layer in layers:
        attention = f"utt_transformer.layer.{layer}.transformer_self_attention"
        for name, column, factor in (
            (f"{attention}.selfatt.value.weight", np.s_[:1], 2.0**12),
            (f"{attention}.selfatt.value.bias", np.s_[:1], 2.0**12),
            (f"{attention}.dense_norm.dense.weight", np.s_[:, :1], 2.0**-12),
        ):
            entry = {item.key: item.value for item in tensors[name].external_data}
            part = slice(int(entry["offset"]), int(entry["offset"]) + int(entry["length"]))
            values = np.frombuffer(data[part], np.float32).reshape(tensors[name].dims).copy()
            values[column] *= np.float32(factor)
            data[part] = values.tobytes()
    with extend_bundle(opened) as writer:
        writer.place(relative).write_bytes(data)
        return writer.commit(opened.manifest)
