"""What 8 bits cost a trained model: decisions and F1 by scikit-learn, of answers that `fmmt run` wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.demo import DemoPaths
from tests.cli.calibrating import calibrated
from tests.cli.running import exit_code

LEAST_AGREEMENT, MOST_F1 = 0.98, 0.005
"""As promised."""


@pytest.fixture(scope="module")
def bundle(demo: DemoPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "bundle"
    assert exit_code("export", "--ckpt", str(demo.checkpoint), "--plm-dir", str(demo.plm), "-o", str(path), "-q") == 0
    for precision in ("int8-fp32", "int8"):
        asked = ("--precision", precision, "--split", "train", "--dialogues", "16", "--method", "percentile")
        for graph in calibrated(path, demo.data, *asked)["graphs"]:
            assert min(graph["sqnr_db"].values()) > 20
    return path


def decisions(bundle: Path, data: Path, engine: str, precision: str) -> dict[str, int]:
    out = bundle.parent / f"{engine}-{precision}.jsonl"
    if not out.exists():
        how = ("--engine", engine, "--precision", precision)
        assert exit_code("run", "-b", str(bundle), "--data", str(data), "-o", str(out), *how, "-q") == 0
    answers = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    return {answer["utterance"]: int(np.argmax(answer["logits"])) for answer in answers}


@pytest.mark.parametrize(("engine", "precision"), [("ort", "int8-fp32"), ("emulated", "int8")])
def test_a_trained_model_keeps_its_decisions(demo: DemoPaths, bundle: Path, engine: str, precision: str) -> None:
    test = read_data(demo.data, "test", Bundle.open(bundle).manifest.architecture)
    labels = {u.id: u.label for dialogue in test.dialogues for u in dialogue.utterances}
    reference = decisions(bundle, demo.data, "ort", "fp32")
    found = decisions(bundle, demo.data, engine, precision)
    assert found.keys() == reference.keys() == labels.keys()
    assert len(found) >= 400
    right, before, after = ([of[name] for name in labels] for of in (labels, reference, found))
    assert np.mean(np.equal(before, after)) >= LEAST_AGREEMENT
    scores = [f1_score(right, answers, average="weighted") for answers in (before, after)]
    assert scores[0] > 0.9  # it has learned: there are decisions to lose
    assert abs(scores[1] - scores[0]) <= MOST_F1
