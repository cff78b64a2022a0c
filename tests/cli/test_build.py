"""`fmmt build`, with real engines of TensorRT-RTX."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import gpu as gpu_module
from fmmt_deploy.engines.tensorrt.gpu import Gpu, current_gpu
from fmmt_deploy.types import GraphName
from tests.cli.running import FMMT, REPOSITORY, exit_code
from tests.engines.quantised import calibrated_bundle

GRAPHS = ("swin", "plm", "fusion")


@pytest.fixture
def bundle(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


@pytest.fixture
def multimodal(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("roberta").path, tmp_path / "bundle"))


def build(bundle: Path, *options: str) -> int:
    return exit_code("build", "-b", str(bundle), "--engine", "trt-rtx", *options)


def test_built_and_found_again(multimodal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(multimodal, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["schema"] == "fmmt.build/1"
    assert [engine["graph"] for engine in first["engines"]] == list(GRAPHS)
    for engine in first["engines"]:
        assert engine["built"]
        assert engine["flops_share"] == {"fp32": 1.0}
        assert engine["realised"]["surprises"] == []
        assert engine["realised"]["flops_share"]["fp32"] + engine["realised"]["unseen_share"] == pytest.approx(1)
        assert Path(engine["path"]).stat().st_size > engine["size_bytes"] > 100_000
    assert build(multimodal, "--json", "-q") == 0
    second = json.loads(capsys.readouterr().out)
    assert [engine["built"] for engine in second["engines"]] == [False, False, False]
    assert [engine["path"] for engine in second["engines"]] == [engine["path"] for engine in first["engines"]]
    assert exit_code("inspect", str(multimodal)) == 0, "the manifest does not mind engines"


def test_as_text(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(bundle, "--cache", str(tmp_path / "cache")) == 0
    shown = capsys.readouterr()
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name in shown.out
    assert "fp32 100.0%" in shown.out
    assert "compute capability 8.0, 8.6, 8.9, 12.0+" in shown.out
    assert "not run: no GPU is here" in shown.out
    assert not (bundle / "engines").exists()


def test_dry_run(multimodal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(multimodal, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "would be built" in text
    assert "8×224×224×3" in text
    assert max(map(len, text.replace(str(multimodal), "").splitlines())) <= 100
    assert not (multimodal / "engines").exists()
    assert build(multimodal, "--graph", "plm") == 0
    capsys.readouterr()
    assert build(multimodal, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [engine["cached"] for engine in found["engines"]] == [False, True, False]
    swin = found["engines"][0]
    assert swin["shapes"][0]["faces"][2] == [64, 224, 224, 3]
    assert swin["needed"]["weight_bytes"] > 0.9 * (multimodal / "graphs/fp32/swin.safetensors").stat().st_size
    patches = 64 * 56 * 56 * 96  # float32 values after the first layer, of 64 faces
    assert swin["needed"]["activation_bytes"] >= 64 * 224 * 224 * 3
    assert swin["needed"]["activation_bytes"] < 100 * 4 * patches


def test_a_profile_and_options(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[[unimodal]]\nutterances = [1, 1, 1]\n\n[[unimodal]]\nutterances = [2, 4, 4]\n")
    assert build(bundle, "--profile", str(recipe), "--opt-level", "1", "--workspace", "0.5", "--json") == 0
    (engine,) = json.loads(capsys.readouterr().out)["engines"]
    assert engine["key"]["profiles"][1] == {"utterances": {"min": 2, "opt": 4, "max": 4}}
    assert engine["key"]["options"] == {"optimization_level": 1, "workspace_bytes": 500_000_000}
    recipe.write_text("[[unimodal]]\nutterances = [1, 1, 1]\naudio = [1, 2, 3]\n")
    assert build(bundle, "--profile", str(recipe)) == 2
    assert "unimodal[0].audio can't vary" in capsys.readouterr().err


def test_another_version_s_engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorrt_rtx

    with monkeypatch.context() as before:
        before.setattr(tensorrt_rtx, "__version__", "1.6.0.99")
        assert build(bundle) == 0
    capsys.readouterr()
    assert build(bundle) == 0
    assert "is built by TensorRT-RTX 1.6.0.99, this is 1.7.1.116" in capsys.readouterr().err
    assert len(list((bundle / "engines").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--graph", "swin"), 2, "this model has no such graph"),
        (("--precision", "swin=fp16"), 2, "swin"),
        (("--precision", "fp16"), 8, "has no fp16 graph of unimodal"),
        (("--precision", "fp16"), 8, "--precision unimodal=fp16\n"),
        (("--profile", "none.toml"), 2, "can't be read"),
        (("--workspace", "inf"), 2, "less than or equal to 1000000"),
        (("--workspace", "1e30"), 2, "less than or equal to 1000000"),
        (("--require", "fp16>0.9"), 2, "is not a requirement"),
        (("--require", "fp16>=0.9"), 9, "unimodal fp32 has 0.00% of its matrix-product FLOPs in fp16"),
    ],
)
def test_refusals(
    bundle: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, message: str
) -> None:
    assert build(bundle, *options) == code
    assert message in capsys.readouterr().err
    assert not (bundle / "engines").exists()


def test_things_in_the_way(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the cache should be, and a folder where the engine should."""
    (tmp_path / "file").write_text("x")
    assert build(bundle, "--cache", str(tmp_path / "file")) == 3
    assert "can't be written" in capsys.readouterr().err
    assert build(bundle, "--cache", str(tmp_path / "cache")) == 0
    (engine,) = (tmp_path / "cache").iterdir()
    engine.unlink()
    engine.mkdir()
    assert build(bundle, "--cache", str(tmp_path / "cache")) == 3
    assert "can't be written" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == [engine]


def test_the_requirement_is_met(bundle: Path) -> None:
    assert build(bundle, "--require", "fp32>=0.95") == 0


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_the_engine_s_own_layers_count(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    """The graph has what is required, the engine does not tell of it."""
    from dataclasses import replace

    from fmmt_deploy.engines.tensorrt import obtain

    real = obtain.realised_from_layers
    monkeypatch.setattr(
        obtain,
        "realised_from_layers",
        lambda *a: replace(real(*a), flops_share={"fp32": share}, unseen_share=1 - share),
    )
    assert build(bundle, "--require", "fp32>=0.95") == 9
    assert "the engine of unimodal fp32 has" in capsys.readouterr().err


def test_a_product_in_another_type(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A builder that quietly took half precision: its layers give it away, and the engine is not kept."""
    from dataclasses import replace

    from fmmt_deploy.engines.tensorrt import build as build_module

    real = build_module.layers_from_log

    def lowered(messages: object) -> object:
        return tuple(replace(layer, inputs=("fp16",) * len(layer.inputs)) for layer in real(messages))  # type: ignore[arg-type]

    monkeypatch.setattr(build_module, "layers_from_log", lowered)
    assert build(bundle) == 9
    assert "is asked for in fp32, in the engine it is in fp16" in capsys.readouterr().err
    assert list((bundle / "engines").iterdir()) == []


def test_eight_bits(tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each graph in another kind of them; without a GPU FP8 is for those who have it, which is said."""
    given: dict[GraphName, Precision] = {"swin": "int8", "plm": "fp8", "fusion": "int8-fp32"}
    bundle = calibrated_bundle(tiny_bundle("roberta"), tmp_path / "bundle", given).path
    asked = ("--precision", ",".join(f"{graph}={precision}" for graph, precision in given.items()))
    required = [f"--require={precision}>=0.5" for precision in given.values()]
    assert build(bundle, *asked, *required, "--json") == 0
    found = json.loads(capsys.readouterr().out)["engines"]
    for engine, (graph, precision) in zip(found, given.items(), strict=True):
        assert (engine["graph"], engine["precision"]) == (graph, precision)
        assert Path(engine["path"]).name.startswith(f"{graph}-{precision}-")
        assert engine["realised"]["flops_share"][precision] == pytest.approx(engine["flops_share"][precision])
        assert engine["realised"]["surprises"] == []
    assert [engine["key"]["target"]["compute_capabilities"] for engine in found] == [
        ["8.0", "8.6", "8.9", "12.0+"],
        ["8.9", "12.0", "12.1"],
        ["8.0", "8.6", "8.9", "12.0+"],
    ]
    assert build(bundle, *asked) == 0
    shown = capsys.readouterr().out
    assert "compute capability 8.9, 12.0, 12.1 (plm)" in shown
    assert "compute capability 8.0, 8.6, 8.9, 12.0+ (swin, fusion)" in shown
    assert build(bundle, *asked, "--require", "int8>=0.999") == 9
    assert "swin int8 has" in capsys.readouterr().err


def test_eight_bits_that_run_in_half(
    tiny_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A builder that dequantised operands before it multiplied them."""
    from dataclasses import replace

    from fmmt_deploy.engines.tensorrt import build as build_module

    bundle = calibrated_bundle(tiny_bundle("unimodal"), tmp_path / "bundle", {"unimodal": "int8"}).path
    real = build_module.layers_from_log

    def dequantised(messages: object) -> object:
        found = real(messages)  # type: ignore[arg-type]
        return tuple(
            replace(layer, inputs=tuple("fp16" if i == "int8" else i for i in layer.inputs)) for layer in found
        )

    monkeypatch.setattr(build_module, "layers_from_log", dequantised)
    assert build(bundle, "--precision", "int8") == 9
    assert "is asked for in int8, in the engine it is in fp16" in capsys.readouterr().err


def test_fp8_on_a_gpu_without_it(
    tiny_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = calibrated_bundle(tiny_bundle("unimodal"), tmp_path / "bundle", {"unimodal": "fp8"}).path
    monkeypatch.setattr(gpu_module, "current_gpu", lambda: Gpu("NVIDIA A10", "8.6", 24 * 10**9, "13.0"))
    assert build(bundle, "--precision", "fp8") == 9
    assert "NVIDIA A10 (8.6) has no FP8" in capsys.readouterr().err
    assert not (bundle / "engines").exists()


def test_without_tensorrt(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert exit_code("build", "-b", str(bundle), "--engine", "trt") == 3
    assert "error: TensorRT is not installed.\n" in capsys.readouterr().err


def test_tensorrt_without_a_gpu(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorrt_rtx

    monkeypatch.setattr(tensorrt_rtx, "__version__", "11.4.0")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    monkeypatch.setattr(gpu_module, "current_gpu", lambda: None)
    assert exit_code("build", "-b", str(bundle), "--engine", "trt") == 3
    assert "builds an engine on the GPU that it is for" in capsys.readouterr().err


def test_ctrl_c(bundle: Path) -> None:
    """`fmmt build` in a process of its own, interrupted once TensorRT has begun."""
    command = [*FMMT, "build", "-b", str(bundle), "--engine", "trt-rtx", "--opt-level", "5"]
    slow = "import fmmt_deploy.engines.tensorrt.obtain as o, time; f = o.plan_from_onnx\n"
    slow += (
        "def g(*a):\n    def tell(*s): print('.', flush=True); time.sleep(0.1)\n    return f(*a[:6], tell, *a[7:])\n"
    )
    # where tests run in the background, the shell has told them to ignore SIGINT
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command[2] = heard + slow + "o.plan_from_onnx = g\n" + command[2]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == ".\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert list((bundle / "engines").iterdir()) == []


def test_kill_while_building(bundle: Path) -> None:
    command = [*FMMT, "build", "-b", str(bundle), "--engine", "trt-rtx"]
    command[2] = (
        "import fmmt_deploy.engines.tensorrt.obtain as o, os, signal\n"
        "o._check_unchanged = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n" + command[2]
    )
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((bundle / "engines").glob("*.engine")) == []
    assert build(bundle) == 0
    (file,) = (bundle / "engines").iterdir()
    assert file.suffix == ".engine"


def test_the_gpu_as_cuda_describes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of `cuda.bindings.runtime`, as its documentation has them: each gives its error first."""

    class Properties:
        name, major, minor, totalGlobalMem = b"NVIDIA L4\0\0", 8, 9, 24 * 10**9  # noqa: N815

    class Runtime:
        class cudaError_t:  # noqa: N801
            cudaSuccess = 0  # noqa: N815

        count = 1

        @classmethod
        def cudaGetDeviceCount(cls) -> tuple[int, int]:  # noqa: N802
            return 0, cls.count

        @staticmethod
        def cudaGetDevice() -> tuple[int, int]:  # noqa: N802
            return 0, 0

        @staticmethod
        def cudaGetDeviceProperties(_: int) -> tuple[int, Properties]:  # noqa: N802
            return 0, Properties()

        @staticmethod
        def cudaDriverGetVersion() -> tuple[int, int]:  # noqa: N802
            return 0, 13020

    assert gpu_module._described(Runtime) == Gpu("NVIDIA L4", "8.9", 24 * 10**9, "13.2")
    Runtime.count = 0
    assert gpu_module._described(Runtime) is None
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert current_gpu() is None
