"""Where a training runs."""

import pytest
import torch

from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.training.devices import lost_peers, open_devices
from fmmt_deploy.training.watching import is_main_process


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match=r"fp16") as error, open_devices("cpu", "fp16"):
        pass
    assert "run.precision=fp32 (or bf16)" in error.value.fix


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with (
        pytest.raises(EnvironmentProblem, match=r"needs an NVIDIA GPU(.*\n)+.*on a CPU use --device cpu"),
        open_devices("cuda", "fp32"),
    ):
        pass


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(EnvironmentProblem, match="3 processes need as many GPUs, found 1"),
        open_devices("cuda", "fp16"),
    ):
        pass


def test_precisions_one_after_the_other() -> None:
    """Accelerate remembers the first one otherwise."""
    linear, x = torch.nn.Linear(64, 64), torch.randn(8, 64)
    expected = linear(x)
    found = []
    for precision in ("fp32", "bf16", "fp32"):
        with open_devices("cpu", precision) as devices:  # type: ignore[arg-type]
            assert (devices.main, devices.processes, devices.scaler) == (True, 1, None)
            prepared = devices.prepared(torch.nn.Sequential(linear))
            found.append((prepared(x) - expected).abs().max().item())
    assert found[0] == found[2] == 0
    assert 1e-4 < found[1] < 1e-1


def test_alone_everything_is_told_to_oneself() -> None:
    with open_devices("auto" if not torch.cuda.is_available() else "cpu", "fp32") as devices:
        assert devices.told("score") == "score"
        assert devices.gathered(3) == [3]
        assert (devices.any(True), devices.any(False)) == (True, False)
        assert devices.summed(torch.ones(2)).tolist() == [1, 1]


def test_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()


def test_a_process_that_is_gone_is_no_bug_of_ours() -> None:
    gloo = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:14758")
    for error in (gloo, torch.distributed.DistBackendError("NCCL error")):
        with pytest.raises(EnvironmentProblem, match="Another process of this training has ended"), lost_peers():
            raise error
    with pytest.raises(RuntimeError, match="shape"), lost_peers():
        raise RuntimeError("shape")
