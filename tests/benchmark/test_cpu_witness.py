"""The witness of the processors, on texts as Linux writes them; expected shares are worked out by hand beside them."""

import os
import time
from pathlib import Path

import pytest

from fmmt_deploy.benchmark.cpu_witness import CpuTimes, CpuWitness, cpu_times
from tests.benchmark.fake_clock import FakeClock

TICKS = 100

STAT = """\
cpu  1200 0 300 8000 100 10 40 50 0 0
cpu0 600 0 150 4000 50 5 20 25 0 0
cpu1 600 0 150 4000 50 5 20 25 0 0
cpu10 9000 0 9000 0 0 0 0 9000 0 0
intr 54275980 0 0
ctxt 123
"""
"""Two processors of ours, and one that is not; ticks of user, nice, system, idle, iowait, irq, softirq, steal."""


def stat(busy: int = 0, idle: int = 0, steal: int = 0) -> str:
    """`STAT` after some more ticks of one of our processors."""
    return STAT.replace("cpu1 600 0 150 4000 50 5 20 25", f"cpu1 {600 + busy} 0 150 {4000 + idle} 50 5 20 {25 + steal}")


class Machine:
    """A `/proc` and a `/sys` to be written to, and processor time of ours."""

    def __init__(self, root: Path) -> None:
        self.root, self.own, self.clock = root, 0.0, FakeClock()
        self.write("proc/stat", STAT)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def of_processor(self, number: int, name: str, value: int) -> None:
        self.write(f"sys/devices/system/cpu/cpu{number}/{name}", f"{value}\n")

    def witness(self) -> CpuWitness:
        return CpuWitness(self.root, (0, 1), lambda: self.own, TICKS, self.clock)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_times_are_those_of_our_processors() -> None:
    """2 × (600 + 150 + 5 + 20) ticks are busy, and 2 × 4850 are all of them."""
    assert cpu_times(STAT, (0, 1), TICKS) == CpuTimes(15.5, 0.5, 97.0)
    assert cpu_times(STAT, (10,), TICKS) == CpuTimes(180.0, 90.0, 270.0)
    assert cpu_times(STAT, (7,), TICKS) is None


def test_kernels_that_know_no_steal() -> None:
    assert cpu_times("cpu0 100 0 100 800\n", (0,), TICKS) == CpuTimes(2.0, 0.0, 10.0)


def test_what_we_use_ourselves_is_not_held_against_us(machine: Machine) -> None:
    """10 s of two processors, 6 s busy, all of them ours."""
    witness = machine.witness()
    witness.begin()
    machine.write("proc/stat", stat(busy=600, idle=1400))
    machine.own = 6.0
    seen = witness.end()
    assert seen.reasons == ()
    assert seen.facts["others_share"] == 0.0


@pytest.mark.parametrize(("own", "share"), [(5.0, 0.048), (4.5, 0.073), (0.0, 0.298)])
def test_what_others_use_is(machine: Machine, own: float, share: float) -> None:
    """20 s of processor time, 6 s busy; four ticks are forgiven, for the rounding of readings."""
    witness = machine.witness()
    witness.begin()
    machine.write("proc/stat", stat(busy=600, idle=1400))
    machine.own = own
    seen = witness.end()
    assert seen.facts["others_share"] == pytest.approx(share)
    assert bool(seen.reasons) == (share > 0.05)
    if seen.reasons:
        assert seen.reasons == (f"Other processes took {share:.0%} of the processors; the limit is 5%.",)


@pytest.mark.parametrize(("steal", "invalid"), [(30, False), (60, True)])
def test_what_a_hypervisor_takes(machine: Machine, steal: int, invalid: bool) -> None:
    """Of 20 s 0.3 s are 1.5 %, and 0.6 s are 3 %."""
    witness = machine.witness()
    witness.begin()
    machine.write("proc/stat", stat(idle=2000 - steal, steal=steal))
    seen = witness.end()
    assert any("hypervisor" in reason for reason in seen.reasons) == invalid
    assert seen.facts["steal_share"] == pytest.approx(steal / 2000)


def test_of_a_moment_nothing_is_said(machine: Machine) -> None:
    witness = machine.witness()
    witness.begin()
    machine.write("proc/stat", stat(busy=30))
    seen = witness.end()
    assert seen.reasons == ()
    assert "what other processes take of the processors, in less than 0.2 s" in seen.unseen


def test_throttling_is_counted(machine: Machine) -> None:
    for number in (0, 1):
        machine.of_processor(number, "thermal_throttle/core_throttle_count", 7)
    witness = machine.witness()
    witness.begin()
    assert not witness.end().reasons
    witness.begin()
    machine.of_processor(1, "thermal_throttle/core_throttle_count", 9)
    assert witness.end().reasons == ("The processors' clock throttled 2 times, for heat or power.",)


@pytest.mark.parametrize(("lowest", "invalid"), [(2_800_000, False), (2_600_000, True)])
def test_a_clock_that_falls(machine: Machine, lowest: int, invalid: bool) -> None:
    """The fastest of our processors right after work: 3.0 GHz, and then 93 % or 87 % of it."""
    machine.of_processor(0, "cpufreq/scaling_cur_freq", 800_000)
    machine.of_processor(1, "cpufreq/scaling_cur_freq", 3_000_000)
    witness = machine.witness()
    witness.begin()
    witness.look()
    machine.of_processor(1, "cpufreq/scaling_cur_freq", lowest)
    witness.look()  # too early to look again
    machine.clock.sleep(1)
    witness.look()
    seen = witness.end()
    assert bool(seen.reasons) == invalid
    assert (seen.facts["lowest_mhz"], seen.facts["highest_mhz"]) == (lowest // 1000, 3000)


def test_a_quota_that_stops_us(machine: Machine) -> None:
    machine.write("sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 900\n")
    witness = machine.witness()
    witness.begin()
    assert not witness.end().reasons
    witness.begin()
    machine.write("sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_periods 20\nnr_throttled 8\nthrottled_usec 4900\n")
    assert witness.end().reasons == ("A quota stopped this process 5 times.",)


def test_what_can_not_be_seen_is_said(tmp_path: Path) -> None:
    witness = CpuWitness(tmp_path, (0,), lambda: 0.0, TICKS)
    witness.begin()
    witness.look()
    seen = witness.end()
    assert seen.reasons == ()
    assert seen.unseen == (
        "what other processes take of the processors",
        "whether the processors' clock throttles for heat",
        "the processors' clock",
    )


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="Linux tells of processors in /proc")
def test_on_this_machine_a_loop_of_ours_is_ours() -> None:
    """Whatever else runs here: what is busy is never less than what this process used, within ticks."""
    processors = os.sched_getaffinity(0)
    ticks = os.sysconf("SC_CLK_TCK")
    before, own = cpu_times(Path("/proc/stat").read_text(), processors, ticks), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    after = cpu_times(Path("/proc/stat").read_text(), processors, ticks)
    assert before is not None
    assert after is not None
    assert after.busy - before.busy >= 0.15
    assert after.total > before.total
