"""Real engines, built with TensorRT-RTX, which needs no GPU for that."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import tensorrt_rtx as trt

from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.products import Product, flops_share, matmul_flops, products_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import build
from fmmt_deploy.engines.tensorrt.build import Plan, plan_from_onnx
from fmmt_deploy.engines.tensorrt.network import NetworkFacts, check_network, facts_of_network
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Range, default_profiles, usual_sizes
from fmmt_deploy.engines.tensorrt.target import PORTABLE, Target
from fmmt_deploy.errors import BundleError, EnvironmentProblem, FmmtError, PrecisionError, UsageError
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt import graphs
from tests.engines.tensorrt.graphs import PROFILE
from tests.models import TINY


def built(path: Path, progress: build.Progress = lambda *_: None) -> Plan:
    return plan_from_onnx("unimodal", path, (PROFILE,), "trt-rtx", BuildOptions(), PORTABLE, progress)


@pytest.mark.parametrize("model", TINY)
def test_all_graphs(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    bundle, profiles = tiny_bundle(model), default_profiles(TINY[model])
    for graph in graphs_of(TINY[model]):
        path = bundle.graph(graph)
        plan = plan_from_onnx(graph, path, profiles.of(graph), "trt-rtx", BuildOptions(), PORTABLE)
        assert bytes(plan.data[:4]) == b"vtrt"
        declared = onnx.load(path, load_external_data=False).graph
        assert {tensor.name for tensor in plan.network.inputs} == {value.name for value in declared.input}
        assert plan.network.products.keys() == {n.name for n in declared.node if n.op_type in ("MatMul", "Gemm")}
        dims = {name: sizes.opt for name, sizes in profiles.of(graph)[0].items()}
        assert sum(product.flops for product in plan.products) == matmul_flops(path, dims)
        assert flops_share(plan.products) == {"fp32": 1.0}
        assert plan.warnings == ()
        assert plan.timing_cache is None


def test_types_of_products(tmp_path: Path) -> None:
    plan = built(graphs.typed(tmp_path / "g.onnx"))
    assert plan.network.products == {"product.low": {"HALF"}, "product.high": {"FLOAT"}}
    assert plan.products == (
        Product("product.low", "MatMul", "fp16", 2 * 4 * 4 * 5),
        Product("product.high", "Gemm", "fp32", 2 * 4 * 5 * 3),
    )
    assert flops_share(plan.products) == {"fp32": 60 / 140, "fp16": 80 / 140}
    assert plan.network.casts == 2


def test_several_profiles(tmp_path: Path) -> None:
    path = graphs.typed(tmp_path / "g.onnx")
    narrow, wide = {"utterances": Range(1, 1, 1)}, {"utterances": Range(2, 64, 64)}
    plan = plan_from_onnx("unimodal", path, (narrow, wide), "trt-rtx", BuildOptions(), PORTABLE)
    assert plan.products[0].flops == 2 * 1 * 4 * 5


class Recording:
    """Stands before a TensorRT object and keeps what it is asked for."""

    def __init__(self, behind: Any, calls: dict[str, Any]) -> None:
        self.__dict__.update(behind=behind, calls=calls)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["behind"], name)
        if not callable(found):
            return found

        def called(*arguments: Any) -> Any:
            self.__dict__["calls"][name] = arguments
            return found(*arguments)

        return called

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["calls"][name] = value
        setattr(self.__dict__["behind"], name, value)


@pytest.mark.parametrize("target", [PORTABLE, Target("NVIDIA RTX", ("8.9",))])
def test_options_reach_the_builder(target: Target) -> None:
    """TF32 is cleared and layer information detailed whatever is asked for; only a GPU's engine is for `CURRENT`."""
    calls: dict[str, Any] = {}
    builder = trt.Builder(trt.Logger())

    class Builder:
        def create_builder_config(self) -> Any:
            return Recording(builder.create_builder_config(), calls)

    options = BuildOptions(optimization_level=5, workspace_bytes=2**30)
    config = build._configured(trt, Builder(), "trt-rtx", options, target)
    assert calls["builder_optimization_level"] == 5
    assert calls["clear_flag"] == (trt.BuilderFlag.TF32,)
    assert not config.behind.get_flag(trt.BuilderFlag.TF32)
    assert calls["profiling_verbosity"] == trt.ProfilingVerbosity.DETAILED
    assert calls["set_memory_pool_limit"] == (trt.MemoryPoolType.WORKSPACE, 2**30)
    assert calls.get("set_compute_capability") == ((trt.ComputeCapability.CURRENT, 0) if target.gpu else None)


def test_options_out_of_range() -> None:
    with pytest.raises(UsageError, match="0 to 5, found 6"):
        BuildOptions(optimization_level=6)
    with pytest.raises(UsageError, match="at least 0 bytes"):
        BuildOptions(workspace_bytes=-1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (graphs.unsupported, r"refuses the node the\.odd\.one \(Unique\) of unimodal"),
        (graphs.mixed, r"refuses the node product \(MatMul\) of unimodal"),
    ],
)
def test_a_refused_node_is_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        built(make(tmp_path / "g.onnx"))
    assert caught.value.tensor in ("the.odd.one", "product")
    assert caught.value.why.startswith("It says: ")
    assert "cudaError" not in caught.value.why, "what the missing driver says of itself is not the reason"
    assert "\n" not in caught.value.why


def test_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"\x00nothing")
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        built(tmp_path / "g.onnx")


def test_a_gpu_that_can_not_be_built_for() -> None:
    class Builder:
        def create_builder_config(self) -> Any:
            return Refusing(trt.Builder(trt.Logger()).create_builder_config(), {})

    class Refusing(Recording):
        def set_compute_capability(self, *_: Any) -> bool:
            return False

    with pytest.raises(EnvironmentProblem, match=r"can't build for NVIDIA H200 \(9\.0\)"):
        build._configured(trt, Builder(), "trt-rtx", BuildOptions(), Target("NVIDIA H200", ("9.0",)))


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """`CURRENT` without a driver is what a builder's failure looks like on this machine."""
    path = graphs.typed(tmp_path / "g.onnx")
    with pytest.raises(EnvironmentProblem, match="needs an NVIDIA driver to build unimodal"):
        plan_from_onnx("unimodal", path, (PROFILE,), "trt-rtx", BuildOptions(), Target("NVIDIA L4", ("8.9",)))


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "Myelin ([pass.cpp:337] Cannot compile operation 'product.low' for Turing)",
            BundleError,
            r"node product\.low",
        ),
        ("Could not find any implementation for node {ForeignNode[product.high]}", BundleError, r"node product\.high"),
        ("Error Code 2: OutOfMemory (no further information)", EnvironmentProblem, "ran out of memory"),
        ("Dynamic input tensor x is missing dimensions in profile 0.", UsageError, "refuses a profile of unimodal"),
        ("Error Code 2: Internal Error (Unsupported SM: 0x900)", EnvironmentProblem, "does not support this GPU"),
        (
            "Myelin (Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3.)",
            PrecisionError,
            "lacks one of its types",
        ),
        ("", BundleError, "can't build unimodal"),
    ],
)
def test_what_a_builder_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[FmmtError], message: str
) -> None:
    def failing(trt: Any, builder: Any, network: Any, config: Any, progress: Any) -> None:
        del trt, network, config, progress
        if said:
            builder.error_recorder.report_error(None, said)

    monkeypatch.setattr(build, "_build", failing)
    with pytest.raises(kind, match=message) as caught:
        built(graphs.typed(tmp_path / "g.onnx"))
    assert said in caught.value.why


def facts(path: Path) -> NetworkFacts:
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(path))
    return facts_of_network(network)


@pytest.mark.parametrize(
    ("products", "message"),
    [
        (
            {"product.low": {"FLOAT"}, "product.high": {"FLOAT"}},
            r"product\.low .* is asked for in fp16, .* has it in FLOAT",
        ),
        ({"product.low": {"HALF", "FLOAT"}, "product.high": {"FLOAT"}}, "has it in FLOAT and HALF"),
        ({"product.low": {"HALF"}}, r"lost the matrix product product\.high"),
        ({"product.low": {"HALF"}, "product.high": {"FLOAT"}, "n": {"HALF"}}, "that the graph has not, n"),
        ({"product.low": {"HALF"}, "product.high": {"FP8"}}, "has it in FP8"),
    ],
)
def test_another_type_than_asked_for(tmp_path: Path, products: dict[str, set[str]], message: str) -> None:
    path = graphs.typed(tmp_path / "g.onnx")
    found, asked = facts(path), products_of(path, usual_sizes(PROFILE))
    check_network(path, found, asked)
    wrong = replace(found, products={node: frozenset(types) for node, types in products.items()})
    with pytest.raises(PrecisionError, match=message) as caught:
        check_network(path, wrong, asked)
    assert caught.value.exit_code == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "z"}, "has inputs x, TensorRT's network z"),
        ({"type": "HALF"}, "as FLOAT"),
        ({"shape": (-1, 5)}, "as FLOAT"),
    ],
)
def test_other_inputs(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = graphs.typed(tmp_path / "g.onnx")
    found, asked = facts(path), products_of(path, usual_sizes(PROFILE))
    with pytest.raises(BundleError, match=message):
        check_network(path, replace(found, inputs=(replace(found.inputs[0], **change),)), asked)


def test_nothing_is_built_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that quietly lowers a product's type is found out before anything is built."""
    real = build.facts_of_network

    def lowered(network: Any) -> NetworkFacts:
        return replace(
            real(network), products={"product.low": frozenset({"HALF"}), "product.high": frozenset({"HALF"})}
        )

    monkeypatch.setattr(build, "facts_of_network", lowered)
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("it was built"))
    with pytest.raises(PrecisionError, match=r"product\.high .* is asked for in fp32, .* has it in HALF"):
        built(graphs.typed(tmp_path / "g.onnx"))


def test_progress(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    built(graphs.typed(tmp_path / "g.onnx"), progress=lambda *step: told.append(step))
    assert told[0] == ("Building engine", 0, told[0][2])
    assert told[-1] == ("Building engine", told[0][2], told[0][2])
    assert all(0 <= done <= total for _, done, total in told)


def test_a_failing_progress_bar_stops_the_build(tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError, match="the terminal is gone"):
        built(graphs.typed(tmp_path / "g.onnx"), progress=broken)


def test_ctrl_c(tmp_path: Path) -> None:
    """Sent while TensorRT builds; it stops at its next step, and the process ends as interrupted."""
    code = """
import os, signal, sys
from pathlib import Path
from fmmt_deploy.engines.tensorrt.build import plan_from_onnx
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.target import PORTABLE
from tests.engines.tensorrt.graphs import PROFILE, typed
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in the background
steps, path = [], typed(Path(sys.argv[1]))
def progress(phase, done, total):
    steps.append(phase)
    if len(steps) == 3:
        os.kill(os.getpid(), signal.SIGINT)
        import time; time.sleep(0.2)
try:
    plan_from_onnx("unimodal", path, (PROFILE,), "trt-rtx", BuildOptions(), PORTABLE, progress)
except KeyboardInterrupt:
    print("interrupted", len(steps))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "g.onnx")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    word, steps = done.stdout.split()
    assert word == "interrupted"
    whole: list[object] = []
    built(graphs.typed(tmp_path / "h.onnx"), progress=lambda *step: whole.append(step))
    assert int(steps) < len(whole), "it did not run to its end"


class FakeCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class FakeConfig:
    """TensorRT's timing cache, as its documentation has it; `set_timing_cache` refuses one of another GPU."""

    def __init__(self) -> None:
        self.cache = FakeCache(b"")

    def create_timing_cache(self, content: bytes) -> FakeCache:
        return FakeCache(content)

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content == b"foreign":
            return False
        self.cache = cache
        return True


@pytest.mark.parametrize(("content", "used"), [(None, b""), (b"known", b"known"), (b"foreign", b"")])
def test_timing_cache(content: bytes | None, used: bytes) -> None:
    config = FakeConfig()
    cache = build._timing_cache(config, "trt", content)
    assert config.cache is cache
    assert cache.content == used
    assert build._timing_cache(config, "trt-rtx", content) is None


def test_the_precision_of_a_graph_is_its_own(tmp_path: Path) -> None:
    share: dict[Precision, float] = flops_share(products_of(graphs.typed(tmp_path / "g.onnx"), usual_sizes(PROFILE)))
    assert sum(share.values()) == pytest.approx(1)
    assert flops_share(()) == {}
