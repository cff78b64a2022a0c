"""GPU providers: absent, not started, or leaving work to the CPU; told on fake sessions, there being no GPU here."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.ort import load as ort_load
from fmmt_deploy.engines.ort.binding import BoundOrtEngine
from fmmt_deploy.engines.ort.placement import check_placement, shape_nodes
from fmmt_deploy.engines.ort.providers import (
    PROVIDERS,
    ProviderKind,
    check_precision,
    provider_of,
    provider_options,
    require_provider,
)
from fmmt_deploy.engines.tensorrt.profiles import default_profiles, shapes_of
from fmmt_deploy.errors import BundleError, EnvironmentProblem, PrecisionError
from tests.cli.running import exit_code
from tests.engines.quantised import block, quantised_model

Bundles = Callable[[str], Bundle]
CPU = "CPUExecutionProvider"
KINDS: list[ProviderKind] = list(PROVIDERS)


@dataclass
class FakeSession:
    """As much of an InferenceSession as is looked at before it runs.

    Attributes:
        providers: What `get_providers` says.
        placed: For each provider, the nodes it was given.
    """

    providers: list[str]
    placed: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(ep_name=n, get_nodes=lambda nodes=nodes: nodes) for n, nodes in self.placed.items()]

    def get_inputs(self) -> list[SimpleNamespace]:
        return []

    def get_outputs(self) -> list[SimpleNamespace]:
        return []


def nodes_of(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(path, load_external_data=False).graph.node)


def split(path: Path, provider: str, on_cpu: Callable[[onnx.NodeProto], bool]) -> FakeSession:
    nodes = nodes_of(path)
    placed = {provider: [n for n in nodes if not on_cpu(n)], CPU: [n for n in nodes if on_cpu(n)]}
    return FakeSession([provider, CPU], placed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [("parity", "--self"), ("parity",)])
def test_a_provider_that_is_not_installed(
    tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str], kind: ProviderKind, command: tuple[str, ...]
) -> None:
    provider = PROVIDERS[kind]
    if provider.name in onnxruntime.get_available_providers():
        pytest.skip(f"{provider.name} is there")
    assert exit_code(*command, "-b", str(tiny_bundle("roberta").path), "--engine", kind) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: --engine {kind} needs {provider.name}, which ONNX Runtime")
    assert "fix: pip " in shown.err


def test_what_may_be_on_the_cpu(tiny_bundle: Bundles) -> None:
    """In `fusion` it is the arithmetic on the number of tokens; nothing that reads an input's values."""
    path = tiny_bundle("roberta").graph("fusion")
    names = shape_nodes(path)
    kinds = {node.name: node.op_type for node in nodes_of(path)}
    assert "words/Shape" in names
    assert {kinds[name] for name in names} <= {"Shape", "Slice", "Gather", "Concat", "Unsqueeze", "Cast", "Identity"}
    assert not any(kind in ("MatMul", "Gemm", "Softmax") for kind in map(kinds.get, names))
    assert len(names) < 0.05 * len(kinds)


def test_shapes_on_the_cpu_are_right(tiny_bundle: Bundles) -> None:
    path, provider = tiny_bundle("roberta").graph("fusion"), PROVIDERS["ort-cuda"]
    shapes = shape_nodes(path)
    session = split(path, provider.name, lambda node: node.name in shapes)
    assert session.placed[CPU]
    check_placement("fusion", path, session, provider)


@pytest.mark.parametrize("op_type", ["Softmax", "Gemm", "GatherND", "LayerNormalization"])
def test_work_on_the_cpu_is_an_error(tiny_bundle: Bundles, op_type: str) -> None:
    path, provider = tiny_bundle("roberta").graph("fusion"), PROVIDERS["ort-cuda"]
    session = split(path, provider.name, lambda node: node.op_type == op_type)
    first = session.placed[CPU][0].name
    with pytest.raises(EnvironmentProblem, match="does not take all of fusion") as caught:
        check_placement("fusion", path, session, provider)
    assert f"{op_type} {first}" in caught.value.why
    assert caught.value.exit_code == 3


def test_cuda_may_help_tensorrt_but_not_with_products(tiny_bundle: Bundles) -> None:
    path, provider = tiny_bundle("roberta").graph("swin"), PROVIDERS["ort-trt"]
    nodes = nodes_of(path)

    def session(on_cuda: str) -> FakeSession:
        cuda = [node for node in nodes if node.op_type == on_cuda]
        rest = [node for node in nodes if node.op_type != on_cuda]
        assert cuda
        return FakeSession(
            [provider.name, "CUDAExecutionProvider", CPU], {provider.name: rest, provider.also or "": cuda}
        )

    check_placement("swin", path, session("Cast"), provider)
    with pytest.raises(EnvironmentProblem, match="does not take all of swin"):
        check_placement("swin", path, session("MatMul"), provider)


@pytest.mark.parametrize("kind", KINDS)
def test_a_provider_that_did_not_start(tiny_bundle: Bundles, kind: ProviderKind) -> None:
    path = tiny_bundle("roberta").graph("plm")
    with pytest.raises(EnvironmentProblem, match="did not start, and ONNX Runtime took CPUExecutionProvider instead"):
        check_placement("plm", path, FakeSession([CPU], {CPU: nodes_of(path)}), PROVIDERS[kind])


def test_a_provider_that_took_nothing(tiny_bundle: Bundles) -> None:
    path, provider = tiny_bundle("roberta").graph("plm"), PROVIDERS["ort-cuda"]
    with pytest.raises(EnvironmentProblem, match="does not take all of plm"):
        check_placement("plm", path, FakeSession([provider.name, CPU], {}), provider)


def test_an_onnxruntime_that_does_not_tell(tiny_bundle: Bundles) -> None:
    silent = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider", CPU])
    with pytest.raises(EnvironmentProblem, match="does not tell where it computes"):
        check_placement("plm", tiny_bundle("roberta").graph("plm"), silent, PROVIDERS["ort-cuda"])


def test_a_real_session_on_the_cpu_is_told_apart(tiny_bundle: Bundles) -> None:
    """The same questions to ONNX Runtime itself: names of nodes are those of the file."""
    path = tiny_bundle("roberta").graph("fusion")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    placed = {node.name for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}
    assert len(placed & {node.name for node in nodes_of(path)}) > 0.9 * len(placed)
    with pytest.raises(EnvironmentProblem, match="did not start"):
        check_placement("fusion", path, session, PROVIDERS["ort-cuda"])


def fake_onnxruntime(session: Callable[..., FakeSession], providers: list[str], **more: object) -> ModuleType:
    module = ModuleType("onnxruntime")
    module.__dict__.update(
        __version__="1.32.0",
        SessionOptions=onnxruntime.SessionOptions,
        OrtValue=onnxruntime.OrtValue,
        InferenceSession=session,
        get_available_providers=lambda: providers,
        get_ep_devices=list,
        **more,
    )
    return module


@pytest.mark.parametrize("kind", ["ort-cuda", "ort-trt"])
def test_sessions_are_opened_strictly(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, kind: ProviderKind
) -> None:
    bundle, provider, asked = tiny_bundle("roberta"), PROVIDERS[kind], []

    def session(path: str, options: onnxruntime.SessionOptions, **arguments: Any) -> FakeSession:
        asked.append((path, options, arguments))
        return split(Path(path), provider.name, lambda node: node.op_type == "Shape")

    module = fake_onnxruntime(session, [provider.name, CPU])
    monkeypatch.setattr(ort_load, "import_onnxruntime", lambda: module)
    with open_engines(bundle, kind) as engines:
        assert engines.face_batch == 64
        assert all(isinstance(engines[graph], BoundOrtEngine) for graph in ("swin", "plm", "fusion"))
    assert len(asked) == 3
    for path, options, arguments in asked:
        assert Path(path).is_file()
        assert options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        assert arguments["enable_fallback"] == 0
        name, given = arguments["providers"][0]
        assert name == provider.name
        if kind == "ort-cuda":
            assert given["use_tf32"] == "0"
            assert len(arguments["providers"]) == 1
        else:
            cache = Path(given["trt_engine_cache_path"])
            assert cache.is_dir()
            assert cache.parent == bundle.path / "engines" / "ort-trt"
            assert arguments["providers"][1:] == ["CUDAExecutionProvider"]
    Bundle.open(bundle.path)  # which the caches do not spoil


def test_a_graph_that_is_refused(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*_: object, **__: object) -> FakeSession:
        raise RuntimeError("no kernel for it")

    module = fake_onnxruntime(session, ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort_load, "import_onnxruntime", lambda: module)
    with pytest.raises(BundleError, match=r"(?s)refuses the graph .*no kernel for it"):
        open_engines(tiny_bundle("roberta"), "ort-cuda")


def test_the_plugin_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, known = PROVIDERS["ort-trt-rtx"], []
    plugin = ModuleType("plugin")
    plugin.__dict__.update(get_ep_name=lambda: provider.name, get_library_path=lambda: "plugin.so")
    monkeypatch.setitem(sys.modules, provider.plugin or "", plugin)

    def register(name: str, path: str) -> None:
        assert path == "plugin.so"
        known.append(SimpleNamespace(ep_name=name))

    module = fake_onnxruntime(FakeSession, [CPU], register_execution_provider_library=register)
    module.__dict__["get_ep_devices"] = lambda: known
    require_provider(module, provider)
    require_provider(module, provider)
    assert len(known) == 1
    module.__dict__["get_ep_devices"] = list
    with pytest.raises(EnvironmentProblem, match="finds no GPU"):
        require_provider(module, provider)


def test_options_by_precision(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    shapes = shapes_of(bundle.graph("plm"), default_profiles(bundle.manifest.architecture).of("plm")[0])
    options = provider_options(PROVIDERS["ort-trt"], "fp16", shapes, None)
    assert options["trt_fp16_enable"] == "1"
    assert options["trt_profile_min_shapes"] == "input_ids:1x2,attention_mask:1x2"
    assert options["trt_profile_max_shapes"] == "input_ids:32x512,attention_mask:32x512"
    assert "trt_fp16_enable" not in provider_options(PROVIDERS["ort-trt"], "fp32", shapes, None)
    allowed: dict[Precision, set[str]] = {
        "fp32": set(),
        "bf16": {"bf16"},
        "int8": {"fp16", "int8"},
        "int8-fp32": {"int8"},
    }
    for precision, kinds in allowed.items():
        options = provider_options(PROVIDERS["ort-trt"], precision, shapes, None)
        assert {name for name in options if name.endswith("_enable")} == {f"trt_{kind}_enable" for kind in kinds}
    rtx = provider_options(PROVIDERS["ort-trt-rtx"], "fp16", shapes, Path("cache"))
    assert rtx["nv_profile_opt_shapes"] == "input_ids:1x128,attention_mask:1x128"
    assert rtx["nv_runtime_cache_path"] == "cache"
    assert provider_of("ort") is None


@pytest.mark.parametrize(
    ("kind", "precision"), [("ort-cuda", "int8"), ("ort-cuda", "int8-fp32"), ("ort-cuda", "fp8"), ("ort-trt", "fp8")]
)
def test_eight_bits_that_a_provider_has_not(tiny_bundle: Bundles, kind: Any, precision: Precision) -> None:
    """They would be slow, and be called what they are not; the same is said with the provider and without."""
    bundle = tiny_bundle("unimodal")
    with pytest.raises(PrecisionError, match=f"--engine {kind} has no products in {precision}") as caught:
        open_engines(bundle, kind, {"unimodal": precision})
    assert caught.value.exit_code == 9
    assert "int8-fp32" in caught.value.fix
    for provider in KINDS:
        check_precision(PROVIDERS[provider], "fp16")
    check_precision(PROVIDERS["ort-trt-rtx"], "fp8")
    check_precision(PROVIDERS["ort-trt"], "int8")


def test_weights_are_dequantised_where_they_are_multiplied(tmp_path: Path) -> None:
    model = quantised_model(block("fp16"))
    onnx.save(model, tmp_path / "g.onnx")
    assert "block/q/weight" in {node.name for node in model.graph.node}
    assert not shape_nodes(tmp_path / "g.onnx")
