"""The parts import in one direction only (also inside functions), and the run path does without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmmt_deploy

PACKAGE = Path(fmmt_deploy.__file__).parent

LAYERS = (
    {"errors"},
    {"foreign_text", "interrupts", "names", "nvidia", "rounding", "student"},
    {"types", "architecture", "json_values"},
    {"data", "bundle"},
    {"reference", "receipts"},
    {"export", "engines"},
    {"calibration"},
    {"pipeline"},
    {"parity", "evaluation", "benchmark", "doctor", "demo", "shapes"},
    {"selection", "training"},
    {"report"},
    {"cli"},
    {"verification"},
)
"""From the ground up: a part may import what is below it, never beside or above."""

RUN_PATH = ("data", "bundle", "receipts", "pipeline", "engines.protocol", "engines.load", "engines.ort", "cli")


def modules(*parts: str) -> list[str]:
    """Dotted names of all modules, or of those in the parts named."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("").parts
        dotted = ".".join(relative[:-1] if relative[-1] == "__init__" else relative)
        if dotted and (not parts or any(f"{dotted}.".startswith(f"{part}.") for part in parts)):
            names.append(dotted)
    return names


def imports_of(path: Path) -> Iterator[str]:
    """Parts of this package that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be read here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("fmmt_deploy."))


def test_every_part_has_its_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == set().union(*LAYERS)


def test_imports_point_downwards() -> None:
    height = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        wrong += [
            f"{path.relative_to(PACKAGE)} imports {part}"
            for part in imports_of(path)
            if own != "__init__" and part != own and height[part] >= height[own]
        ]
    assert not wrong


@pytest.mark.parametrize("part", RUN_PATH)
def test_run_path_imports_no_training_framework(part: str) -> None:
    names = modules(part)
    assert names
    code = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module('fmmt_deploy.' + name)\n"
        "print([name for name in ('torch', 'transformers', 'timm', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
