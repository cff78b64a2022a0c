"""What is shown of one utterance that two sides answered; `stages` finds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fmmt_deploy.types import GraphName

__all__ = ["Blame", "FaceStage", "SideAnswer", "StageError", "UtteranceDiff"]


@dataclass(frozen=True, slots=True)
class SideAnswer:
    """What one side answers.

    Attributes:
        decision: The emotion.
        next: The emotion it would flip to first: that of the second logit.
        margin: By how much the first logit exceeds the second.
        logits: (7,).
        probabilities: (7,), their softmax.
    """

    decision: str
    next: str
    margin: float
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FaceStage:
    """A face at the gate, on both sides.

    Attributes:
        face: Which of the utterance's faces, from 0.
        path: Its picture.
        reference_confidence: Σp²; the gate keeps a face if this is above the threshold.
        confidence: The engine's.
        reference_passed: Whether it passed the reference's gate.
        passed: Whether it passed the engine's.
        reference_kept: Whether the reference used it: it passed, or none did.
        kept: Whether the engine used it.
        reference_emotion: The likeliest emotion of the face alone, with the noise of the run.
        emotion: The engine's.
    """

    face: int
    path: str
    reference_confidence: float
    confidence: float
    reference_passed: bool
    passed: bool
    reference_kept: bool
    kept: bool
    reference_emotion: str
    emotion: str


@dataclass(frozen=True, slots=True)
class StageError:
    """How far the engine is off after a stage, with its own outputs of the stages before.

    Attributes:
        stage: `face logits`, `confidence` (Σp² of the faces), `token states` (of its own words) or `logits`.
        graph: What computes it.
        shape: What was compared.
        largest: Largest absolute error.
        relative: ‖error‖ / ‖reference‖; infinite where only the reference is 0.
        sqnr_db: The same in decibels, 10·log10(Σ reference² / Σ error²); infinite where nothing differs.
    """

    stage: str
    graph: GraphName
    shape: tuple[int, ...]
    largest: float
    relative: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Blame:
    """A graph's part in the difference of the logits, from all mixtures of both sides; see `swaps`.

    Attributes:
        graph: Which.
        alone: Largest absolute error of the logits if only this graph is the engine's.
        flips: Whether that alone changes the decision.
        error_share: Shapley's share of the logits' squared error, as a part of 1; 0 where there is no error.
        margin_share: Shapley's share in how the lead of the reference's decision changed; they add up to the change.
    """

    graph: GraphName
    alone: float
    flips: bool
    error_share: float
    margin_share: float


@dataclass(frozen=True, slots=True)
class UtteranceDiff:
    """An utterance, answered by the reference and by an engine.

    Attributes:
        utterance: Its id.
        dialogue: Its dialogue's.
        text: Its words, if the data set has them.
        label: Its true emotion, if that is known.
        threshold: Of the gate.
        reference: The reference's answer.
        engine: The engine's.
        lead_change: How the engine changed the lead of the reference's decision over the best other class.
        faces: Those that are used; none where the model has no gate.
        unused_faces: How many more there are than the model has places for.
        stages: Errors, in the order of computing.
        blame: One a graph.
    """

    utterance: str
    dialogue: str
    text: str | None
    label: str | None
    threshold: float
    reference: SideAnswer
    engine: SideAnswer
    lead_change: float
    faces: tuple[FaceStage, ...]
    unused_faces: int
    stages: tuple[StageError, ...]
    blame: tuple[Blame, ...]

    @property
    def changed(self) -> bool:
        """Whether the decisions differ."""
        return self.reference.decision != self.engine.decision

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self) | {"changed": self.changed}
