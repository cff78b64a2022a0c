"""How good a model's decisions are: the scores of one run over a labelled data set, and their spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import DataError, NotEquivalentError
from fmmt_deploy.evaluation.scores import accuracy, class_scores, confusion_matrix, macro_f1, weighted_f1
from fmmt_deploy.types import EMOTIONS, IntArray

__all__ = [
    "ClassScore",
    "Evaluation",
    "Spread",
    "checked_labels",
    "checked_logits",
    "evaluate",
    "mean_evaluation",
    "over_seeds",
]

SHOWN = 5


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one emotion, 0 to 1; 0 where there is no case. `support` counts its utterances."""

    emotion: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one run.

    Attributes:
        utterances: Ids, in the data set's order.
        weighted_f1: MELD's own measure, 0 to 1 (the published tables show it times 100).
        macro_f1: Plain mean of the classes' F1.
        accuracy: Share of right decisions.
        classes: One entry an emotion, in the order of `EMOTIONS`.
        confusion: Counts; row the true emotion, column the decision.
    """

    utterances: tuple[str, ...]
    weighted_f1: float
    macro_f1: float
    accuracy: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def metrics(self) -> dict[str, float]:
        """Every score by name: `weighted_f1`, `macro_f1`, `accuracy` and `f1/<emotion>`."""
        overall = {"weighted_f1": self.weighted_f1, "macro_f1": self.macro_f1, "accuracy": self.accuracy}
        return overall | {f"f1/{score.emotion}": score.f1 for score in self.classes}

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {
            "utterances": len(self.utterances),
            "weighted_f1": self.weighted_f1,
            "macro_f1": self.macro_f1,
            "accuracy": self.accuracy,
            "classes": [
                {"emotion": c.emotion, "precision": c.precision, "recall": c.recall, "f1": c.f1, "support": c.support}
                for c in self.classes
            ],
            "confusion": [list(row) for row in self.confusion],
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """One score over several seeds. `deviation` is the sample standard deviation, 0 for a single seed."""

    seeds: int
    mean: float
    deviation: float
    lowest: float
    highest: float

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {
            "seeds": self.seeds,
            "mean": self.mean,
            "deviation": self.deviation,
            "range": [self.lowest, self.highest],
        }


def evaluate(utterances: Sequence[str], labels: Sequence[int | None], logits: NDArray[np.floating]) -> Evaluation:
    """Scores decisions against labels. A decision is the class of the largest logit, the first of equals.

    Args:
        utterances: `(U,)` ids.
        labels: `(U,)`, indices into `EMOTIONS`.
        logits: `(U, 7)`.

    Raises:
        DataError: There is no utterance, or one without a label.
        NotEquivalentError: The logits are of another shape, or not all finite.
    """
    truth = checked_labels(utterances, labels)
    confusion = confusion_matrix(truth, checked_logits(utterances, logits, "logits").argmax(axis=1))
    scores = class_scores(confusion)
    columns = zip(EMOTIONS, scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    return Evaluation(
        utterances=tuple(utterances),
        weighted_f1=float(weighted_f1(confusion)),
        macro_f1=float(macro_f1(confusion)),
        accuracy=float(accuracy(confusion)),
        classes=tuple(ClassScore(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in columns),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def mean_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The mean of every score over runs that differ in their seed; the confusion counts all their decisions.

    Raises:
        DataError: There is no run, or the runs are over different utterances.
    """
    _check_same(evaluations)
    first = evaluations[0]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    by_class = zip(*(evaluation.classes for evaluation in evaluations), strict=True)
    confusion = np.sum([evaluation.confusion for evaluation in evaluations], axis=0)
    return Evaluation(
        utterances=first.utterances,
        weighted_f1=mean(e.weighted_f1 for e in evaluations),
        macro_f1=mean(e.macro_f1 for e in evaluations),
        accuracy=mean(e.accuracy for e in evaluations),
        classes=tuple(
            ClassScore(
                runs[0].emotion,
                mean(c.precision for c in runs),
                mean(c.recall for c in runs),
                mean(c.f1 for c in runs),
                runs[0].support,
            )
            for runs in by_class
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def over_seeds(evaluations: Sequence[Evaluation]) -> dict[str, Spread]:
    """Mean and spread of every score of `Evaluation.metrics` over runs that differ in their seed.

    Raises:
        DataError: There is no run, or the runs are over different utterances.
    """
    _check_same(evaluations)
    runs = [evaluation.metrics() for evaluation in evaluations]
    return {name: _spread([run[name] for run in runs]) for name in runs[0]}


def checked_labels(utterances: Sequence[str], labels: Sequence[int | None]) -> IntArray:
    """The labels `(U,)` as an array.

    Raises:
        DataError: There is none, another number than utterances, or an utterance without one of the seven labels.
    """
    if len(utterances) == 0 or len(labels) != len(utterances):
        raise DataError(
            f"Scores need one label for each utterance, found {len(labels)} for {len(utterances)}.",
            fix="Choose a split that has utterances and labels.",
        )
    unknown = [
        id_ for id_, label in zip(utterances, labels, strict=True) if label is None or not 0 <= label < len(EMOTIONS)
    ]
    if unknown:
        raise DataError(
            f"Scores need a label for every utterance, found none for {len(unknown)}: {_some(unknown)}.",
            fix="Add the labels, or use 'fmmt run', which needs none.",
        )
    return np.array(labels, np.int64)


def checked_logits(utterances: Sequence[str], logits: NDArray[np.floating], name: str) -> NDArray[np.floating]:
    """The logits `(U, 7)` as they are.

    Raises:
        NotEquivalentError: They are of another shape, or not all finite.
    """
    expected = (len(utterances), len(EMOTIONS))
    if logits.shape != expected:
        raise NotEquivalentError(f"The {name} must be of shape {expected}, found {logits.shape}.", tensor=name)
    broken = [id_ for id_, row in zip(utterances, np.isfinite(logits).all(axis=1), strict=True) if not row]
    if broken:
        raise NotEquivalentError(
            f"The {name} must be finite, found NaN or infinity for {len(broken)} of {len(logits)} utterances: "
            f"{_some(broken)}.",
            fix="Run 'fmmt parity' to see which graph produces them.",
            tensor=name,
        )
    return logits


def _check_same(evaluations: Sequence[Evaluation]) -> None:
    if len({evaluation.utterances for evaluation in evaluations}) != 1:
        raise DataError(
            f"Seeds need at least one run, all over the same utterances, found {len(evaluations)} that differ.",
            fix="Run every seed on the same data set and split.",
        )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (" …" if len(ids) > SHOWN else "")


def _spread(values: Sequence[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(len(values), float(np.mean(values)), deviation, min(values), max(values))
