"""The published evaluation's way of answering, which all others are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from fmmt_deploy.benchmark.queries import Query, dataset_of
from fmmt_deploy.engines.protocol import Value
from fmmt_deploy.pipeline.inputs import fusion_inputs
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.pipeline.run import Clock, Pipeline

__all__ = ["PUBLISHED_TOKENS", "Published"]

PUBLISHED_TOKENS = 512


class Published:
    """One utterance after the other at batch 1, the whole dialogue padded to 512 tokens again for each.

    Args:
        pipeline: Prepares the same inputs as for the others; its engines should be PyTorch's.
        clock: Encloses each stage's work.
    """

    def __init__(self, pipeline: Pipeline, clock: Clock = nullcontext) -> None:
        self._pipeline, self._clock = pipeline, clock

    def ready(self, query: Query) -> None:
        """See `Answering.ready`; there is nothing to make."""

    def answer(self, queries: Sequence[Query]) -> None:
        """See `Answering.answer`."""
        for query in queries:
            self._answer_one(query)

    def _answer_one(self, query: Query) -> None:
        sizes, engines = self._pipeline.architecture.fusion, self._pipeline.engines
        assert sizes is not None
        (group,) = self._pipeline.plan(dataset_of((query,)))
        step = self._pipeline.read(group.members)
        with self._clock("prepare"):
            ids = np.zeros((1, PUBLISHED_TOKENS), np.int64)
            ids[0, : len(group.windows[0])] = group.windows[0]
            mask = (np.arange(PUBLISHED_TOKENS) < len(group.windows[0])).astype(np.int64)[None]
        with self._clock("swin"):
            logits: Value = np.empty((0, 7), np.float32)
            if len(step.faces):
                logits = engines["swin"].start({"faces": step.faces})["face_logits"]
        with self._clock("plm"):
            states = engines["plm"].start({"input_ids": ids, "attention_mask": mask})["token_states"]
        with self._clock("fusion"):
            answer = engines["fusion"].start(fusion_inputs(step.members, sizes, states, logits, no_noise))
            answer["logits"].numpy()
