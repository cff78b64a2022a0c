"""The models in the package: of the recipe that is there, as good as promised; and they can be made again."""

import json
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from fmmt_deploy.architecture import Architecture, PlmKind
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.demo import DemoPaths, make_demo_data, trained_run
from fmmt_deploy.demo.language_model import write_language_model
from fmmt_deploy.demo.paths import TrainedModel
from fmmt_deploy.reference.checkpoints import read_checkpoint
from fmmt_deploy.reference.loading import model_from_checkpoint
from fmmt_deploy.training.recipes import read_effective
from tests.cli.running import REPOSITORY, exit_code

RECIPE = REPOSITORY / "training" / "demo.toml"

CHANGES: dict[TrainedModel, tuple[str, ...]] = {
    "roberta": (),
    "bert": ("model.plm=bert",),
    "v-only": ("model.modality=V", "faces.epochs=0"),
}
"""As the recipe's first lines say."""

LEAST_F1, LEAST_LOSS = 0.85, 0.05
"""As promised, of the test split without noise, and without any one modality."""

MOST_SECONDS = 1200
"""Three minutes on two cores that nobody else uses; here they may be anybody's."""

MOST_BYTES = 4_000_000


@pytest.mark.parametrize("name", get_args(TrainedModel))
def test_is_of_the_recipe_that_is_there(name: TrainedModel) -> None:
    recorded = read_effective(trained_run(name) / "settings.toml").settings
    assert recorded == read_effective(RECIPE, CHANGES[name]).settings


@pytest.mark.parametrize("name", get_args(TrainedModel))
def test_is_small_and_says_what_it_is(name: TrainedModel) -> None:
    files = {path.name: path for path in trained_run(name).iterdir()}
    texts = set() if name == "v-only" else {"tokenizer.json"}
    assert files.keys() == {"config.json", "model.safetensors", "settings.toml", "model-card.md"} | texts
    assert sum(path.stat().st_size for path in files.values()) < MOST_BYTES
    assert str(Path.home()) not in files["model-card.md"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_reads_with_the_vocabulary_that_is_made(name: PlmKind, tmp_path: Path) -> None:
    """Its own is in its folder; the published form gets a new one, which a newer library might alter."""
    write_language_model(tmp_path, name)
    own = json.loads((trained_run(name) / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(tokenizer_json(tmp_path, name)) == own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_has_learnt_from_everything(name: TrainedModel, demo: DemoPaths) -> None:
    from fmmt_deploy.training.ablation import ablate

    checkpoint = read_checkpoint(trained_run(name))
    model = model_from_checkpoint(checkpoint, **checkpoint.settings)
    tokenizer = (trained_run(name) / "tokenizer.json").read_text(encoding="utf-8")
    found = ablate(model, tokenizer, read_data(demo.data, "test", model.architecture))
    assert found.full_f1 >= LEAST_F1
    losses = {left.without: -left.difference for left in found.left}
    assert min(losses[source] for source in ("text", "audio", "vision")) >= LEAST_LOSS, losses
    assert losses["other turns"] > 0


@pytest.mark.slow
@pytest.mark.timeout(MOST_SECONDS + 60)
def test_can_be_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_demo_data(tmp_path / "data")
    start = time.perf_counter()
    data, run = str(tmp_path / "data"), tmp_path / "run"
    given = ("--config", str(RECIPE), "--data", data, "--aux-data", f"{data}/affwild2", "--from-scratch")
    assert exit_code("train", *given, "-o", str(run), "--ablate", "-q") == 0
    seconds = time.perf_counter() - start
    ablation = json.loads((run / "ablation.json").read_text(encoding="utf-8"))
    with capsys.disabled():
        sys.stdout.write(f"\ntrained in {seconds:.0f} s to F1 {ablation['full_f1']:.4f}\n")
    losses = {left["without"]: -left["difference"] for left in ablation["left"]}
    assert ablation["full_f1"] >= LEAST_F1
    assert min(losses[source] for source in ("text", "audio", "vision")) >= LEAST_LOSS, losses
    assert seconds < MOST_SECONDS
    assert isinstance(read_checkpoint(run / "best").architecture, Architecture)
