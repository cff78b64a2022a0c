"""Two processes on the CPU, under torchrun, train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.sources import Portraits, Seen, Utterances, small_settings, small_training

ROOT = Path(__file__).parents[2]

WITHOUT_GRADIENT = {
    "swin.output_layer.0.bias",  # BatchNorm takes away what is the same in all rows
    "swin.output_layer.2.bias",
    "swin.output_layer.3.running_mean",  # follows the bias above
    "fusion.attention.value.bias",  # softmax takes it away
}
"""Where the gradient is nothing but rounding, of which AdamW makes whole steps."""


def run_two(folder: Path) -> None:
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    words = [*map(str, command), "-m", "tests.training.sources", str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Both phases, several passes a step, and steps that have less than a case for each process."""
    seen = Seen()
    settings, target = small_settings(save_minutes=1000.0), Utterances(count=13, passes=2)
    _, model, _ = small_training(
        tmp_path / "one", settings=settings, target=target, faces=Portraits(count=7), watcher=seen
    )
    run_two(tmp_path / "two")
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["losses"] == pytest.approx([record.loss for record in seen.steps], abs=1e-5)
    assert report["norms"] == pytest.approx([record.gradient_norm for record in seen.steps], rel=1e-3)
    assert report["cases"] == [record.cases for record in seen.steps]
    last = load_file(tmp_path / "two" / "last.safetensors")
    own = model.state_dict()
    assert last.keys() == own.keys()
    far = {name for name in own if (own[name] - last[name]).abs().max() > 1e-4}
    assert far <= WITHOUT_GRADIENT
