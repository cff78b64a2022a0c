"""A data set that a model is right on, and that is large enough to judge by."""

from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import EMOTIONS, DataSet, Dialogue

COPIES = 6
MARGIN = "5"
"""Points of F1: what 24 dialogues without a change can show. `fmmt eval` says so itself."""


def label_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands read each dialogue 6 times, with labels that the bundle's float32 graphs answer.

    Of a model that guesses, no fault changes F1; and 4 dialogues show nothing.
    """
    read = Session.dataset

    def relabelled(self: Session, data: Path, split: str, faces_dir: Path | None, limit: int | None) -> DataSet:
        dataset = read(self, data, split, faces_dir, limit)
        with open_engines(self.bundle, "ort", threads=1) as engines:
            answers = {p.utterance: EMOTIONS.index(p.label) for p in Pipeline(self.bundle, engines).run(dataset)}
        copies = range(COPIES)
        return replace(
            dataset,
            dialogues=tuple(copied(d, answers, copy) for copy in copies for d in dataset.dialogues),
            order=tuple(f"{id_}-{copy}" for copy in copies for id_ in dataset.order),
        )

    monkeypatch.setattr(Session, "dataset", relabelled)


def copied(dialogue: Dialogue, answers: dict[str, int], copy: int) -> Dialogue:
    utterances = (replace(u, id=f"{u.id}-{copy}", label=answers[u.id]) for u in dialogue.utterances)
    return replace(dialogue, id=f"{dialogue.id}-{copy}", utterances=tuple(utterances))
