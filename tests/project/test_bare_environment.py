"""Without the optional packages, everything still imports that does not exist for them, and every help is shown."""

import json
import subprocess
import sys

import pytest

from tests.project.test_layering import modules

BLOCK = """
import importlib, json, sys

class Absent:
    names = ("torch", "torchvision", "transformers", "timm", "safetensors", "onnxruntime", "sklearn", "tensorrt_rtx",
             "matplotlib", "accelerate", "tensorboardX")
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

NEED_TORCH = {
    *("demo.checkpoints", "demo.published", "engines.emulated.engine", "engines.emulated.operators"),
    *(f"reference.{name}" for name in ("fusion", "layers", "loading", "model", "plm", "swin")),
    *(f"training.{name}" for name in ("augmentation", "batches", "checkpoints", "devices", "loading", "objective")),
    *(f"training.{name}" for name in ("optimisation", "published_way", "state", "stepping", "trainer", "workers")),
}
"""Modules that are PyTorch through and through; everything else imports it where it needs it."""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_only_what_is_torch_needs_torch() -> None:
    code = """
failed = []
for name in sys.argv[1:]:
    try: importlib.import_module("fmmt_deploy." + name)
    except ModuleNotFoundError: failed.append(name)
print(json.dumps(failed))
"""
    done = run(code, *modules())
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == NEED_TORCH


def commands() -> list[str]:
    from fmmt_deploy.cli.app import build_app

    return [command.name for command in build_app().registered_commands if command.name]


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_needs_nothing_optional(command: str) -> None:
    done = run("from fmmt_deploy.cli.app import main\nmain(sys.argv[1:])", *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: fmmt" in done.stdout
    if command:
        assert "Example: fmmt " in done.stdout
