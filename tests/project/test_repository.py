"""What holds for every file of the repository."""

import ast
import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.project.test_layering import PACKAGE, modules

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-gpu.lock", "requirements-uv.lock")
RECIPE_FOLDERS = ("export", "engines", "calibration", "training", "benchmarks")

# Put together here, so that this file does not hold what it looks for.
HOSTS = ("py" + "pi.org", "files.python" + "hosted.org", "download.py" + "torch.org", "py" + "pi.nvidia.com")
PRIVATE_PATHS = (r"/ro" + r"ot/", r"/wo" + r"rk/", re.escape(f"{Path.home()}/"), re.escape(str(ROOT)))


def committed_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert len(files) > 100
    return [path for path in files if path.is_file()]


def test_no_file_names_a_registry_or_this_machine() -> None:
    words = "|".join([*map(re.escape, HOSTS), *(rf"(?<![\w.\-]){path}" for path in PRIVATE_PATHS)])
    pattern = re.compile(words.encode())
    found = {str(path.relative_to(ROOT)): pattern.findall(path.read_bytes()) for path in committed_files()}
    assert not {name: hits for name, hits in found.items() if hits}


def test_there_is_no_uv_lock() -> None:
    assert not [path for path in committed_files() if path.name == "uv" + ".lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_names_versions_and_hashes_only(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    requirements = [
        line for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")
    ]
    assert requirements
    for line in requirements:
        assert re.fullmatch(r"[\w.\-]+==[\w.!+]+( ; [^\\]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:100]
    assert "://" not in text


@pytest.mark.parametrize(
    ("name", "wanted", "other"),
    [(LOCKS[0], "onnxruntime", "onnxruntime-gpu"), (LOCKS[1], "onnxruntime-gpu", "onnxruntime")],
)
def test_one_onnxruntime_a_lock(name: str, wanted: str, other: str) -> None:
    names = set(re.findall(r"^([\w.\-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert wanted in names
    assert other not in names


def test_the_lock_has_all_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = ("cpu", "plots", "torch", "trt-rtx", "dev")
    asked = [line for extra in chosen for line in extras[extra]] + project["dependencies"]
    names = {re.split(r"[^\w.\-]", line)[0].lower() for line in asked}
    locked = set(re.findall(r"^([\w.\-]+)==", (ROOT / LOCKS[0]).read_text(encoding="utf-8"), re.MULTILINE))
    assert names <= locked


@pytest.mark.parametrize("name", modules())
def test_all_is_there_and_true(name: str) -> None:
    module = importlib.import_module(f"fmmt_deploy.{name}")
    path = Path(str(module.__file__))
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    if path.name == "__init__.py" and len(statements) <= 1:
        return  # holds its docstring only
    assert module.__doc__, f"{name} does not say what it is for"
    exported = module.__all__
    assert len(exported) == len(set(exported))
    assert [public for public in exported if not hasattr(module, public)] == []


def test_modules_stay_short_and_well_named() -> None:
    paths = list(PACKAGE.rglob("*.py"))
    long = {path.name: lines for path in paths if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long
    assert not {path.stem for path in paths} & {"utils", "util", "helpers", "misc", "common", "manager"}


def test_stage_folders_hold_recipes_and_a_readme_only() -> None:
    for folder in RECIPE_FOLDERS:
        names = {path.name for path in (ROOT / folder).iterdir()} - {"results"}
        assert "README.md" in names
        assert {Path(name).suffix for name in names} <= {".md", ".toml", ".sh"}
        assert {path.suffix for path in (ROOT / folder / "results").glob("*")} <= {".json"}


def test_no_recipe_goes_unloaded() -> None:
    """Each recipe is loaded by a test of its stage, listed here beside it."""
    names = ("default", "h200", "l4", "rtx-4090", "t4")
    loaded = {f"engines/{name}.toml": "tests/engines/tensorrt/test_profiles.py" for name in names}
    for name in ("cpu", "gpu-fp8", "gpu-int8"):
        loaded[f"calibration/{name}.toml"] = "tests/calibration/test_recipes.py"
    for name in ("bert", "demo", "roberta", "v-only"):
        loaded[f"training/{name}.toml"] = "tests/training/test_recipes.py"
    recipes = {str(path.relative_to(ROOT)) for folder in RECIPE_FOLDERS for path in (ROOT / folder).rglob("*.toml")}
    assert recipes == loaded.keys()


def test_ci_calls_what_the_readme_names() -> None:
    called = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert called == ["check", "test", "demo"]
    assert all(f"make {target}" in readme for target in called)
