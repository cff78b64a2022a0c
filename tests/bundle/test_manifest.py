import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.manifest import (
    FileEntry,
    Manifest,
    SourceEntry,
    check_relative_path,
    json_from_manifest,
    manifest_from_json,
)
from fmmt_deploy.errors import BundleError
from tests.bundle.samples import FULL, UNIMODAL

ENTRY = FileEntry("ab" * 32, 7)
V_ONLY = Manifest(
    architecture=UNIMODAL,
    graphs={"unimodal": {"fp32": "unimodal.onnx"}},
    files={"unimodal.onnx": ENTRY},
    source=SourceEntry({}),
    tools={"fmmt-deploy": "9.9"},
    created="2026-01-02T03:04:05+00:00",
)
WHOLE = replace(
    V_ONLY,
    architecture=FULL,
    graphs={"swin": {"fp32": "a.onnx", "int8": "b/c.onnx"}, "plm": {"fp16": "a.onnx"}, "fusion": {"bf16": "a.onnx"}},
    files={"a.onnx": ENTRY, "b/c.onnx": ENTRY, "tokenizer.json": ENTRY},
    tokenizer="tokenizer.json",
)


@pytest.mark.parametrize("manifest", [V_ONLY, WHOLE], ids=["V", "T+A+V"])
def test_round_trip(manifest: Manifest) -> None:
    assert manifest_from_json(json_from_manifest(manifest)) == manifest


def edited(path: str, value: object) -> str:
    values = json.loads(json_from_manifest(WHOLE))
    *parents, last = path.split("/")
    inner = values
    for name in parents:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tau", 0, "tau should be above 0"),
        ("tau", True, "tau should be a number, found True"),
        ("tau", float("nan"), "NaN"),
        ("tau", 10**400, "tau should be a finite number"),
        ("threshold", 1.5, "threshold should be between 0 and 1"),
        ("threshold", ..., "threshold should be present"),
        ("surprise", 1, "surprise should be absent"),
        ("emotions", ["joy"] * 7, "emotions should be 7 different names"),
        ("emotions", [5], r"emotions\[0\] should be text"),
        ("created", "yesterday", "created should be an ISO 8601 time"),
        ("graphs/swin/fp4", "a.onnx", "graphs.swin should be one of 'fp32'"),
        ("graphs/swin", {}, "graphs.swin should be a file"),
        ("graphs/plm", ..., "graphs should be exactly swin, plm, fusion"),
        ("graphs/swin/fp32", "z.onnx", "graphs.swin.fp32 should be a file listed"),
        ("tokenizer", "t.json", "tokenizer should be a file listed"),
        ("self_test", "../self_test.npz", "stay inside the bundle"),
        ("files/..", {"sha256": "ab" * 32, "size_bytes": 1}, "stay inside the bundle"),
        ("files/a.onnx/sha256", "AB" * 32, "64 hexadecimal"),
        ("files/a.onnx/size_bytes", -1, "size_bytes"),
        ("files/a.onnx/size_bytes", 1.0, "whole number"),
        ("files/a.onnx/mode", 1, "mode should be absent"),
        ("source/checkpoints/x.pt", "no", "64 hexadecimal"),
        ("tools/torch", None, "tools.torch should be text"),
        ("architecture/modality", "A", "architecture.modality should be one of"),
        ("architecture/plm", None, "architecture.plm should be present"),
        ("architecture/plm/kind", "gpt", "architecture.plm.kind should be one of"),
        ("architecture/plm/hidden_size", 0, "architecture.plm.hidden_size should be above 0"),
        ("architecture/plm/layers", 2**40, "architecture.plm.layers should be above 0"),
        ("architecture/fusion/heads", 7, "architecture.fusion.heads should be a divisor"),
        ("architecture/swin/heads", [3], "architecture.swin.heads should be as many"),
        ("architecture/swin/depths", [], "architecture.swin.depths should be not empty"),
        ("architecture/unimodal", {"hidden_size": 1}, "architecture.unimodal.heads should be present"),
        ("schema", "1", "schema should be a whole number"),
        ("tokenizer", "\ud800", "valid Unicode"),
    ],
)
def test_every_field_is_checked(path: str, value: object, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        manifest_from_json(edited(path, value))


@pytest.mark.parametrize("schema", [0, 2, 10**300])
def test_other_schema_names_its_writer_and_the_way_out(schema: int) -> None:
    with pytest.raises(BundleError, match=r"fmmt-deploy 9\.9") as caught:
        manifest_from_json(edited("schema", schema))
    assert "Export it again" in caught.value.fix


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1, "schema": 1}', "[" * 100_000, "9" * 5000])
def test_what_is_no_json_object(text: str) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is not valid"):
        manifest_from_json(text)


@pytest.mark.parametrize(
    "path", ["/a", "../a", "a/../b", "a//b", "", ".", "a\\b", "C:a", "a\n", "a\0", "manifest.json"]
)
def test_paths_that_leave_the_bundle(path: str) -> None:
    with pytest.raises(BundleError):
        check_relative_path(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    "schema", "architecture", "architecture/swin", "architecture/plm/heads", "emotions", "tau", "graphs", "graphs/swin",
    "graphs/swin/fp32", "tokenizer", "files", "files/a.onnx", "files/a.onnx/sha256", "source", "source/checkpoints",
    "tools", "created",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON_VALUES)
def test_fuzzed_values_are_read_or_refused(place: str, value: object) -> None:
    try:
        manifest = manifest_from_json(edited(place, value))
    except BundleError:
        return
    assert manifest_from_json(json_from_manifest(manifest)) == manifest


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fuzzed_text_is_read_or_refused(data: st.DataObject) -> None:
    text = json_from_manifest(WHOLE)
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 20)) :]
    with suppress(BundleError):
        manifest_from_json(text)
