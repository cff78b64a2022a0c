"""Two processes on the CPU, under torchrun, train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fmmt_deploy.training.state import read_progress
from tests.training.sources import Portraits, Utterances, small_settings, small_training

ROOT = Path(__file__).parents[2]

WITHOUT_GRADIENT = {
    "swin.output_layer.0.bias",  # BatchNorm takes away what is the same in all rows
    "swin.output_layer.2.bias",
    "swin.output_layer.3.running_mean",  # follows the bias above
    "fusion.attention.value.bias",  # softmax takes it away
}
"""Where the gradient is nothing but rounding, of which AdamW makes whole steps."""


def run_two(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [str(torchrun), "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    command += ["-m", "tests.training.sources", str(folder), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_train_as_one_interrupted_or_not(tmp_path: Path) -> None:
    """Both phases, several passes a step, and steps that have less than a case for each process.

    They are interrupted in a pass of the second process, and both stop after the same step, with it saved.
    """
    settings, target = small_settings(save_minutes=1000.0), Utterances(count=13, passes=2)
    _, model, seen = small_training(tmp_path / "one", settings=settings, target=target, faces=Portraits(count=7))
    two = tmp_path / "two"
    done = run_two(two, "interrupted")
    assert "exitcode  : 130" in done.stderr, done.stderr[-3000:]
    progress = read_progress(two)
    assert progress is not None
    assert (progress.epoch, progress.phase, progress.step) == (1, "target", 2)
    done = run_two(two)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((two / "report.json").read_text())
    rest = seen.steps[5:]
    assert report["losses"] == pytest.approx([record.loss for record in rest], abs=1e-5)
    assert report["norms"] == pytest.approx([record.gradient_norm for record in rest], rel=1e-3)
    assert report["cases"] == [record.cases for record in rest]
    last, own = load_file(two / "last.safetensors"), model.state_dict()
    assert last.keys() == own.keys()
    assert {name for name in own if (own[name] - last[name]).abs().max() > 1e-4} <= WITHOUT_GRADIENT
