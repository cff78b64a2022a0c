"""A bundle's self-test: small recorded inputs and outputs of every graph, as arrays in an uncompressed `.npz`.

Members are named `<graph>/<inputs or outputs>/<tensor>.npy`. Nothing is ever unpickled, and no array is made before its
header was found to agree with the bytes that are there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import BundleError
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = ["Stage", "read_self_test", "self_test_of", "write_self_test"]

_ROLES = ("inputs", "outputs")
_NUMBERS = "biuf"
"""NumPy's kinds of types for booleans, integers and floats."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What one graph was given and what it must answer, by tensor name."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]


def write_self_test(path: Path, stages: Mapping[GraphName, Stage]) -> None:
    """Writes a self-test; the same arrays give the same bytes.

    Args:
        path: The `.npz` to write.
        stages: One for each graph, arrays of numbers or booleans.

    Raises:
        ValueError: An array has other content.
        OSError: It can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for graph, stage in stages.items():
        for role, tensors in zip(_ROLES, (stage.inputs, stage.outputs), strict=True):
            for name, array in tensors.items():
                if array.dtype.kind not in _NUMBERS:
                    raise ValueError(f"{graph}/{role}/{name} should hold numbers, found {array.dtype}")
                arrays[f"{graph}/{role}/{name}.npy"] = np.asarray(array, order="C")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, array in arrays.items():
            with archive.open(zipfile.ZipInfo(member), "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)


def read_self_test(path: Path) -> dict[GraphName, Stage]:
    """Reads what `write_self_test` wrote.

    Raises:
        BundleError: It is damaged, or holds something else.
        OSError: It can't be read.
    """
    stages: dict[GraphName, Stage] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                graph, role, name = _parts(info.filename)
                with archive.open(info) as file:
                    array = _read_array(file, info)
                stage = stages.setdefault(graph, Stage({}, {}))
                tensors = stage.inputs if role == "inputs" else stage.outputs
                cast(dict[str, NDArray[Any]], tensors)[name] = array
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError) as error:
        # zipfile reports encryption as RuntimeError and unknown compression as NotImplementedError
        raise BundleError(
            f"{path} is not a readable self-test.", why=str(error), fix="Export the bundle again.", path=path
        ) from error
    return stages


def self_test_of(bundle: Bundle) -> dict[GraphName, Stage]:
    """What a bundle's graphs were given, and answered, when it was made.

    Raises:
        BundleError: It holds no self-test.
    """
    if bundle.manifest.self_test is None:
        raise BundleError(f"The bundle {bundle.path} holds no self-test.", fix="Export it again.", path=bundle.path)
    return read_self_test(bundle.file(bundle.manifest.self_test))


def _parts(member: str) -> tuple[GraphName, str, str]:
    parts = member.removesuffix(".npy").split("/", 2)
    if len(parts) != 3 or parts[0] not in GRAPHS or parts[1] not in _ROLES:
        raise ValueError(f"{member!r} is not named <graph>/<inputs or outputs>/<tensor>.npy")
    return parts[0], parts[1], parts[2]


def _read_array(file: IO[bytes], info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename!r} is compressed")
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{info.filename!r} is of another version of the .npy format")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.kind not in _NUMBERS or fortran:
        raise ValueError(f"{info.filename!r} does not hold numbers in C order")
    data = file.read()
    size = dtype.itemsize
    for length in shape:
        if length < 0:
            raise ValueError(f"{info.filename!r} has a negative size")
        size *= length
    if size != len(data):
        raise ValueError(f"{info.filename!r} should have {size} bytes, found {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape).copy()
