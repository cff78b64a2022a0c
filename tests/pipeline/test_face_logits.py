"""An answer carries what the face model said of the faces it used, asked one utterance at a time in the engine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.pipeline.run import Pipeline
from tests.models import ON_CPU
from tests.pipeline.conversations import conversations, dataset, only


@pytest.mark.parametrize("kind", ON_CPU)
def test_every_answer_has_those_of_its_own_faces(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, kind: EngineKind
) -> None:
    bundle = tiny_bundle("roberta")
    dialogues = conversations(tmp_path)
    utterances = {u.id: u for dialogue in dialogues for u in dialogue.utterances}
    with open_engines(bundle, kind, threads=1) as engines:
        answers = Pipeline(bundle, engines, batch_size=4, face_batch=5).in_order(dataset(dialogues))
        for answer in answers:
            used = utterances[answer.utterance].faces[: bundle.manifest.architecture.vision_length]
            assert answer.face_logits.shape == (len(used), 7)
            if used:
                expected = engines["swin"].run({"faces": read_faces(used)})["face_logits"]
                np.testing.assert_allclose(answer.face_logits, expected, rtol=0, atol=1e-5)
    assert {len(answer.face_logits) for answer in answers} >= {0, 1, 6}


def test_a_model_without_a_gate_has_none(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    seen = [only(d, [u.position for u in d.utterances if u.vision_length]) for d in conversations(tmp_path)]
    with open_engines(bundle, "ort", threads=1) as engines:
        answers = Pipeline(bundle, engines).in_order(dataset(seen))
    assert {answer.face_logits.shape for answer in answers} == {(0, 7)}
