"""Damaged at random, every kind of checkpoint is read or refused; nothing else ever happens."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fmmt_deploy.errors import FmmtError
from fmmt_deploy.reference.checkpoints import read_checkpoint
from fmmt_deploy.reference.loading import model_from_checkpoint, save_checkpoint
from fmmt_deploy.reference.presets import random_model
from tests.reference.samples import V_ONLY, faces, multimodal, plm_dir, state_dict, vision_only

BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=4)


def damaged(content: bytes, changes: list[tuple[float, bytes]], cut: float = 1.0) -> bytes:
    changed = bytearray(content)
    for where, what in changes:
        at = int(where * len(changed))
        changed[at : at + len(what)] = what
    return bytes(changed[: int(cut * len(changed))])


def read_or_refuse(path: Path, plm: Path | None = None) -> None:
    with suppress(FmmtError):
        model_from_checkpoint(read_checkpoint(path, plm), tau=1.0, threshold=0.2)


def pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def with_pickle(path: Path, content: bytes) -> bytes:
    """The archive with another `data.pkl` and right checksums, so that damage gets past the archive's reader."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            block = content if info.filename.endswith("/data.pkl") else source.read(info)
            target.writestr(info.filename, block)
    return out.getvalue()


@pytest.mark.parametrize("source", [vision_only("roberta"), multimodal("bert"), faces("roberta")])
@BOUNDED
@given(changes=CHANGES)
def test_pickles(tmp_path: Path, source: Path, changes: list[tuple[float, bytes]]) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(with_pickle(source, damaged(pickle_of(source), changes)))
    with suppress(FmmtError):
        read_checkpoint(path)


@BOUNDED
@given(changes=CHANGES, cut=st.floats(0, 1))
def test_archives(tmp_path: Path, changes: list[tuple[float, bytes]], cut: float) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(damaged(vision_only("bert").read_bytes(), changes, cut))
    read_or_refuse(path)


@pytest.mark.parametrize("only_header", [True, False])
@BOUNDED
@given(changes=CHANGES, cut=st.sampled_from([1.0, 0.999, 0.5, 0.01]))
def test_safetensors(tmp_path: Path, only_header: bool, changes: list[tuple[float, bytes]], cut: float) -> None:
    path = tmp_path / "x.safetensors"
    save_file(state_dict(vision_only("bert")), path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little") if only_header else len(content)
    path.write_bytes(damaged(content[:end], changes, cut) + content[end:])
    read_or_refuse(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def edited(text: str, where: float, value: object) -> str:
    """One value of a JSON object, at any depth, replaced."""
    values = json.loads(text)
    places: list[Callable[[], None]] = []

    def visit(inner: object) -> None:
        if isinstance(inner, dict):
            for name, item in inner.items():
                places.append(lambda inner=inner, name=name: inner.__setitem__(name, value))  # type: ignore[misc]
                visit(item)

    visit(values)
    places[int(where * len(places))]()
    return json.dumps(values)


@BOUNDED
@given(where=st.floats(0, 1, exclude_max=True), value=JSON_VALUES)
def test_run_configurations(tmp_path: Path, where: float, value: object) -> None:
    if not (tmp_path / "config.json").exists():
        save_checkpoint(random_model(V_ONLY), tmp_path)
        shutil.copy(tmp_path / "config.json", tmp_path / "good.json")
    (tmp_path / "config.json").write_text(edited((tmp_path / "good.json").read_text(), where, value))
    read_or_refuse(tmp_path)


@BOUNDED
@given(where=st.floats(0, 1, exclude_max=True), value=JSON_VALUES)
def test_language_model_configurations(tmp_path: Path, where: float, value: object) -> None:
    path = tmp_path / "x.safetensors"
    if not path.exists():
        save_file(state_dict(multimodal("roberta")), path)
    (tmp_path / "config.json").write_text(edited((plm_dir("roberta") / "config.json").read_text(), where, value))
    with suppress(FmmtError):
        read_checkpoint(path, tmp_path)
