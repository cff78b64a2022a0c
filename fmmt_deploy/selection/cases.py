"""A data set as cases that can be gone through again and again, with whose and of which dialogue each answer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.parity.run import Case
from fmmt_deploy.pipeline.inputs import face_counts, utterance_inputs, vision_inputs
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.pipeline.plan import Group, Member, padded_tokens
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, Utterance

__all__ = ["KEPT_BYTES", "DataCases"]

KEPT_BYTES = 512 * 2**20
"""Faces that are kept decoded: some 3,500. Those beyond are read again every time."""


class DataCases:
    """A data set as `parity.run.Case`s, prepared as `fmmt run` would, without noise.

    Faces are read when they are asked for, so whoever asks for texts only pays for texts. What is kept: the plan, and
    faces up to a bound; features belong to the data set.

    Args:
        pipeline: Prepares the inputs; its engines are not run.
        dataset: The utterances.
        keep_bytes: See `KEPT_BYTES`.

    Attributes:
        utterances: `(U,)` ids, in the order of the cases' rows.
        dialogues: `(U,)`, the id of each utterance's dialogue.
        labels: `(U,)`, indices into `EMOTIONS`, or None where unknown.
    """

    def __init__(self, pipeline: Pipeline, dataset: DataSet, keep_bytes: int = KEPT_BYTES) -> None:
        self._pipeline, self._room = pipeline, keep_bytes
        self._kept: dict[str, Array] = {}
        self._groups: tuple[Group, ...] = ()
        if pipeline.architecture.fusion is None:
            members = [Member(u) for dialogue in dataset.dialogues for u in dialogue.utterances]
            self._groups = (Group((), tuple(members)),)
        else:
            self._groups = pipeline.plan(dataset)
        ordered = [member.utterance for group in self._groups for member in group.members]
        dialogue_of = {u.id: dialogue.id for dialogue in dataset.dialogues for u in dialogue.utterances}
        self.utterances = tuple(u.id for u in ordered)
        self.dialogues = tuple(dialogue_of[u.id] for u in ordered)
        self.labels = tuple(u.label for u in ordered)

    def __iter__(self) -> Iterator[Case]:
        """Every case once, in the pipeline's order. Those of one group share the arrays of their text."""
        sizes = self._pipeline.architecture.fusion
        for group in self._groups:
            text = None
            if sizes is not None:
                ids, mask = padded_tokens(group.windows)
                text = {"input_ids": ids, "attention_mask": mask}
            for members in self._pipeline.steps(group):
                utterances = [member.utterance for member in members]
                if sizes is None:
                    yield Case(None, None, vision_inputs(utterances, self._pipeline.architecture.vision_length))
                else:
                    yield Case(self._faces(members), text, utterance_inputs(members, sizes, no_noise))

    def read(self, members: tuple[Member, ...]) -> Array:
        """The faces of some utterances, (N, 224, 224, 3); kept while there is room."""
        key = members[0].utterance.id
        if key in self._kept:
            return self._kept[key]
        faces = self._pipeline.read(members).faces
        if faces.nbytes <= self._room:
            self._room -= faces.nbytes
            self._kept[key] = faces
        return faces

    def _faces(self, members: tuple[Member, ...]) -> Mapping[str, Array] | None:
        utterances: list[Utterance] = [member.utterance for member in members]
        return _Faces(self, members) if any(face_counts(utterances, self._pipeline.architecture)) else None


@dataclass(frozen=True, slots=True)
class _Faces(Mapping[str, Array]):
    """What `swin` takes, read when it is asked for."""

    cases: DataCases
    members: tuple[Member, ...]

    def __getitem__(self, name: str) -> Array:
        if name != "faces":
            raise KeyError(name)
        return self.cases.read(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(("faces",))

    def __len__(self) -> int:
        return 1
