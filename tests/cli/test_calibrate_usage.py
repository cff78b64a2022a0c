"""What `fmmt calibrate` refuses: with what exit code, in what words, and leaving everything as it was."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.types import DataSet, Dialogue
from tests.calibration.talk import Talk, renamed, write_jsonl, write_talk
from tests.cli.calibrating import SMALL, Bundles, calibrate, state_of
from tests.cli.running import REPOSITORY
from tests.project.test_bare_environment import run as run_bare

RECIPE = str(REPOSITORY / "calibration" / "gpu-int8.toml")
INT8 = ("--precision", "int8", "--method", "max")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


@pytest.fixture
def unchanged(bundle: Path) -> Iterator[None]:
    """Nothing of the bundle is, and nothing is beside it that was not."""
    before = state_of(bundle.parent)
    yield
    assert state_of(bundle.parent) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "One of --precision, --recipe, --auto says what is to be made; found none of them"),
        (("--precision", "int8", "--recipe", RECIPE), "found --precision and --recipe"),
        (("--precision", "int8", "--auto"), "found --precision and --auto"),
        (("--recipe", RECIPE, "--auto"), "found --recipe and --auto"),
        (("--precision", "int8", "--recipe", RECIPE, "--auto"), "--precision and --recipe and --auto"),
        (("--recipe", RECIPE, "--keep-back", "*"), "--keep-back goes with --precision, not with --recipe"),
        (("--auto", "--keep-back", "*"), "--keep-back goes with --precision, not with --auto"),
        (("--precision", "int8", "--for", "cpu"), "--for is about --auto"),
        (("--precision", "int8", "--max-f1-drop", "1"), "--max-f1-drop is about --auto"),
        (("--recipe", RECIPE, "--judge-split", "val"), "--judge-split is about --auto"),
        (("--recipe", RECIPE, "--write-recipe", "x.toml"), "--write-recipe is about --auto"),
        (("--auto", "--max-f1-drop", "inf"), "is no number of points"),
        (("--auto", "--write-recipe", RECIPE), "is there already"),
        (("--precision", "fp32"), "nothing to calibrate"),
        (("--precision", "fp16"), "unimodal in fp16 needs no calibration"),
        (("--precision", "bf16"), "--precision unimodal=bf16`; here ask for"),
        (("--precision", "int4"), "no precision 'int4'"),
        (("--precision", "swin=int8"), "this model has no graph 'swin'"),
        (("--precision", "int8", "--smooth", "text"), "--smooth text: there is no graph 'text'"),
        (("--precision", "int8", "--smooth", "plm,"), "there is no graph ''"),
        (("--precision", "int8", "--keep-back", "Conv*"), "--keep-back 'Conv*' fits no product of unimodal"),
        (("--precision", "int8", "--percentile", "0"), "above 0 and at most 100; found 0.0"),
        (("--precision", "int8", "--percentile", "nan"), "found nan"),
        (("--precision", "int8", "--method", "median"), "median"),
        (("--precision", "int8", "--dialogues", "0"), "dialogues"),
        (("--recipe", "nowhere.toml"), "The recipe nowhere.toml can't be read"),
    ],
)
def test_usage(
    bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """Before anything is computed."""
    assert calibrate(bundle, talk.folder, "--split", "train", *arguments) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert "collecting" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[precision", "is not TOML"),
        ('[precision]\nunimodal = "int4"', "precision.unimodal"),
        ('[precision]\nplm = "int8"', "is about plm; this model has unimodal"),
        ('[precision]\nunimodal = "fp32"', "nothing to calibrate"),
        ('[precision]\nunimodal = "int8"\n[keep]\nunimodal = ["Conv*"]', "'Conv*', which fits nothing of unimodal"),
    ],
)
def test_recipes_that_make_no_sense(
    bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    recipe = bundle.parent / "recipe.toml"
    recipe.write_text(text)
    before = state_of(bundle.parent)
    assert calibrate(bundle, talk.folder, "--recipe", str(recipe), *SMALL, "--method", "max") == 2
    assert words in capsys.readouterr().err
    assert state_of(bundle.parent) == before


Data = Callable[[DataSet, Path], Path]


def seen(dialogues: tuple[Dialogue, ...]) -> tuple[Dialogue, ...]:
    """Without utterances that a vision-only model could not read, which a JSONL may not have."""
    return tuple(replace(d, utterances=tuple(u for u in d.utterances if u.vision_length)) for d in dialogues)


def wider(data: DataSet, folder: Path) -> Path:
    """Of a model that reads 17 columns of vision."""
    dialogues = tuple(
        replace(d, utterances=tuple(replace(u, vision=np.pad(u.vision, ((0, 0), (0, 1)))) for u in d.utterances))  # type: ignore[type-var]
        for d in seen(data.dialogues)
    )
    return write_jsonl(folder / "train.jsonl", dialogues)


def empty(_: DataSet, folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text("")
    return folder / "train.jsonl"


def tiny(data: DataSet, folder: Path) -> Path:
    return write_jsonl(folder / "train.jsonl", seen(data.dialogues[:2]))


def not_finite(data: DataSet, folder: Path) -> Path:
    path = write_jsonl(folder / "train.jsonl", seen(data.dialogues))
    features = sorted(folder.glob("*_v.npy"))[3]
    rows = np.load(features)
    rows[0, 5] = np.nan
    np.save(features, rows)
    return path


def without_faces(data: DataSet, folder: Path) -> Path:
    gone = tuple(
        replace(d, utterances=tuple(replace(u, faces=(), vision_length=0) for u in d.utterances))
        for d in data.dialogues
    )
    return write_jsonl(folder / "train.jsonl", gone)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wider, "should have the shape (rows, 16)"),
        (empty, "train.jsonl"),
        (tiny, "too few to calibrate on"),
        (not_finite, "has a number that is NaN or infinite"),
    ],
)
def test_data(
    bundle: Path,
    talk: Talk,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    data: Data,
    words: str,
) -> None:
    path = data(talk.train, tmp_path_factory.mktemp("data") / "set")
    assert calibrate(bundle, path, *INT8, "--split", "train") == 2
    assert words in capsys.readouterr().err


def test_data_without_faces(
    tiny_bundle: Bundles, talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = without_faces(talk.train, tmp_path / "set")
    assert calibrate(tiny_bundle("roberta").path, path, *INT8, "--split", "train", "--dry-run") == 2
    assert "has a face, and the model looks at faces" in capsys.readouterr().err


@pytest.mark.usefixtures("unchanged")
def test_a_split_that_is_not_there(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, talk.folder, *INT8, "--split", "val") == 2
    assert "holds no val split" in capsys.readouterr().err


@pytest.mark.usefixtures("unchanged")
def test_test_data_under_another_name(
    bundle: Path, talk: Talk, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another order, with other ids, in another format, called val: found by what it holds."""
    folder = tmp_path_factory.mktemp("other")
    path = write_jsonl(folder / "val.jsonl", renamed(seen(talk.test.dialogues), folder / "faces"))
    assert calibrate(bundle, path, *INT8, "--split", "val", "--test-data", str(talk.folder)) == 2
    assert "are in the test split" in capsys.readouterr().err
    assert calibrate(bundle, talk.folder, *INT8, "--split", "test") == 2
    assert "nothing is chosen on test data" in capsys.readouterr().err


def test_some_test_data_can_be_left_out(bundle: Path, talk: Talk, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    mixed = (*seen(talk.train.dialogues), *renamed(seen(talk.test.dialogues[:1]), folder / "faces"))
    path = write_jsonl(folder / "val.jsonl", mixed)
    asked = (*INT8, "--split", "val", "--test-data", str(talk.folder), "-q")
    assert calibrate(bundle, path, *asked) == 2
    assert calibrate(bundle, path, *asked, "--leave-out-test") == 0
    receipt = json.loads((bundle / "receipts/calibration-unimodal-int8.json").read_text())
    assert receipt["coverage"]["reading"]["left_out"] == 1
    assert receipt["coverage"]["dialogues"] == len(talk.train.dialogues)


def test_a_search_with_nothing_to_judge_on(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of(bundle.parent)
    asked = ("--auto", "--split", "train", "--judge-split", "train", "--write-recipe", str(bundle.parent / "x.toml"))
    assert calibrate(bundle, talk.folder, *asked) == 2
    assert "none is left to judge on" in capsys.readouterr().err
    assert state_of(bundle.parent) == before


def test_a_search_where_a_graph_is_there(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, talk.folder, *INT8, *SMALL, "-q") == 0
    before = state_of(bundle.parent)
    asked = ("--auto", "--split", "train", "--write-recipe", str(bundle.parent / "x.toml"))
    assert calibrate(bundle, talk.folder, *asked) == 2
    assert "has unimodal in int8 already, which might be made" in capsys.readouterr().err
    assert state_of(bundle.parent) == before


def altered(bundle: Path, name: str, value: float) -> Bundle:
    """The bundle with one number of a weight changed, and a manifest that agrees."""
    opened = Bundle.open(bundle)
    tensors = onnx.load(opened.graph("unimodal"), load_external_data=False).graph.initializer
    entry = {item.key: item.value for item in next(t for t in tensors if t.name == name).external_data}
    relative = "graphs/fp32/unimodal.safetensors"
    data = bytearray((bundle / relative).read_bytes())
    start = int(entry["offset"])
    data[start : start + 4] = np.float32(value).tobytes()
    with extend_bundle(opened) as writer:
        writer.place(relative).write_bytes(data)
        return writer.commit(opened.manifest)


@pytest.mark.parametrize(
    ("name", "value", "precision", "tensor"),
    [
        ("modality_linear.weight", np.nan, "int8", "Reshape_2"),
        ("utt_transformer.layer.1.intermediate.dense.bias", np.inf, "fp8", "utt_transformer.layer.1/Gemm_4"),
        ("utt_transformer.layer.1.output.dense.weight", np.nan, "int8-fp32", "utt_transformer.layer.1/Gemm_5"),
        ("classifier.weight", np.nan, "int8", "classifier.weight"),
    ],
)
def test_weights_that_are_not_finite(
    bundle: Path,
    talk: Talk,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: float,
    precision: str,
    tensor: str,
) -> None:
    altered(bundle, name, value)
    before = state_of(bundle.parent)
    assert calibrate(bundle, talk.folder, "--precision", precision, *SMALL, "--method", "max", "--json") == 9
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "PrecisionError"
    assert shown["tensor"] == tensor
    assert state_of(bundle.parent) == before


@pytest.mark.usefixtures("unchanged")
def test_without_torch(bundle: Path, talk: Talk) -> None:
    code = "from fmmt_deploy.cli.app import main\nmain(sys.argv[1:])"
    arguments = ("calibrate", "-b", str(bundle), "--data", str(talk.folder), "--split", "train", *INT8)
    done: subprocess.CompletedProcess[str] = run_bare(code, *arguments)
    assert done.returncode == 3, done.stderr
    assert "torch" in done.stderr
    assert "install" in done.stderr
