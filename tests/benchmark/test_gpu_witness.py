"""The witness of a GPU, on what `nvidia-smi` prints; bits of the reasons for a lower clock are as in NVML's header."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fmmt_deploy.benchmark import gpu_witness
from fmmt_deploy.benchmark.gpu_witness import (
    GpuSample,
    GpuWitness,
    gpu_in_use,
    gpu_samples,
    process_ids,
    recorded_by_nvidia_smi,
)
from fmmt_deploy.benchmark.validity import Seen
from fmmt_deploy.engines.tensorrt.gpu import current_gpu

OWN = 4242


def clocks(*samples: tuple[int, int]) -> str:
    """As `nvidia-smi --query-gpu=clocks.sm,clocks_event_reasons.active,power.draw,temperature.gpu` has it."""
    return "".join(f"{mhz}, 0x{reasons:016x}, 512.34, 61\n" for mhz, reasons in samples)


def seen(clock_text: str, processes: str = f"{OWN}\n") -> Seen:
    asked: list[Sequence[str]] = []

    def recorder(arguments: Sequence[str]) -> Callable[[], str]:
        asked.append(arguments)
        return lambda: processes if "compute-apps" in arguments[1] else clock_text

    witness = GpuWitness("00000000:1A:00.0", recorder, (OWN,))
    witness.begin()
    witness.look()
    found = witness.end()
    assert [arguments[0] for arguments in asked] == ["--id=00000000:1A:00.0"] * 2
    return found


def test_what_nvidia_smi_prints_is_read() -> None:
    text = "1980, 0x0000000000000004, 698.11, 64\n345, 0x0000000000000001, [N/A], [Not Supported]\n[N/A], [N/A], 1, 2\n"
    assert gpu_samples(text) == (GpuSample(1980, 4, 698.11, 64.0), GpuSample(345, 1, None, None))
    assert gpu_samples('Field "clocks_event_reasons.active" is not a valid field to query.\n') == ()
    assert process_ids("4242\n17, \n 99 \nNo running processes found\n") == {4242, 99}


def test_a_quiet_gpu_is_believed() -> None:
    found = seen(clocks((345, 0x1), (1980, 0x0), (1905, 0x4)))
    assert found.reasons == ()
    assert found.unseen == ()
    assert found.facts == {
        "gpu_lowest_mhz": 1905.0,  # idle does not count
        "gpu_highest_mhz": 1980.0,
        "gpu_power_capped": 4.0,
        "gpu_highest_celsius": 61.0,
    }


@pytest.mark.parametrize(
    ("bit", "words"), [(0x8, "hardware slowed"), (0x20, "software"), (0x40, "heat"), (0x80, "power supply")]
)
def test_a_throttling_clock_is_invalid(bit: int, words: str) -> None:
    (reason,) = seen(clocks((1980, 0x0), (1980, bit))).reasons
    assert reason.startswith("The GPU's clock throttled: ")
    assert words in reason


@pytest.mark.parametrize(("lowest", "reasons", "expected"), [(1790, 4, 0), (1770, 4, 1), (1770, 0, 1)])
def test_a_clock_that_falls_by_more_than_a_tenth_is_invalid(lowest: int, reasons: int, expected: int) -> None:
    """Of 1980 MHz nine tenths are 1782."""
    found = seen(clocks((1980, 0), (lowest, reasons))).reasons
    assert len(found) == expected
    if found:
        assert found[0].startswith(f"The GPU's clock fell from 1980 MHz to {lowest} MHz while measuring")
        assert ("power cap" in found[0]) == bool(reasons)


@pytest.mark.parametrize(
    ("processes", "others"),
    [(f"{OWN}\n", 0), (f"{OWN}\n7\n7\n", 1), ("31337\n", 0), ("31337\n31338\n", 1), (f"{OWN}\n1\n2\n", 2)],
    ids=["ours", "another", "ours by the host's id", "another by the host's ids", "two"],
)
def test_who_else_computes_there(processes: str, others: int) -> None:
    found = seen(clocks((1980, 0)), processes).reasons
    assert found == ((f"Other processes use the GPU: {others} of them.",) if others else ())


def test_what_can_not_be_seen_is_said() -> None:
    expected = ("the GPU's clock under load", "whether other processes use the GPU")
    assert seen("", "").unseen == expected
    unwatched = GpuWitness(None, lambda _: pytest.fail("nothing is asked"))
    unwatched.begin()
    assert unwatched.end() == Seen(unseen=expected)


def test_a_program_that_repeats_its_answer_is_stopped_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@"\necho ready > "$(dirname "$0")/ready"\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    read = recorded_by_nvidia_smi(["--id=0", "--query-compute-apps=pid"])
    while not (tmp_path / "ready").exists():
        pass
    assert read().split() == [
        "--id=0",
        "--query-compute-apps=pid",
        "--format=csv,noheader,nounits",
        "--loop-ms=500",
    ]


def test_without_nvidia_smi_there_is_nothing_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert recorded_by_nvidia_smi(["--id=0"])() == ""


@pytest.mark.skipif(current_gpu() is not None, reason="says what happens without a GPU")
def test_without_a_gpu_none_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_witness, "_gpu_of_pytorch", lambda: None)
    assert gpu_in_use() is None
