"""How a model with noise is judged: without it, on recorded draws, seed by seed, and by the mean over the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.evaluation.audit import Audit, audit
from fmmt_deploy.evaluation.band import Band, reference_band
from fmmt_deploy.evaluation.equivalence import equivalence
from fmmt_deploy.evaluation.evaluation import Evaluation, Spread, checked_labels, evaluate, mean_evaluation, over_seeds
from fmmt_deploy.evaluation.scores import DoubleArray, probabilities
from fmmt_deploy.evaluation.verdict import Equivalence
from fmmt_deploy.pipeline.noise import Noise
from fmmt_deploy.pipeline.run import Prediction
from fmmt_deploy.types import DataSet, FloatArray

__all__ = ["Asked", "Draw", "Mode", "ModeName", "asked_from_dataset", "mean_logits", "modes_from_draws"]

ModeName: TypeAlias = Literal["none", "replayed", "seeded", "mean"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What both sides are asked: ids, dialogues and labels of the utterances, (U,) each."""

    utterances: tuple[str, ...]
    dialogues: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """The answers with one draw of the noise; the reference's with the same, or none."""

    noise: Noise
    answers: Sequence[Prediction]
    reference: Sequence[Prediction] | None = None


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to treat the noise, and what came of it.

    Attributes:
        mode: `none`; `replayed`, draws from a file; `seeded`, drawn anew for each seed, the same on both sides; `mean`,
            the probabilities averaged over the seeds' draws on each side, then decided.
        seeds: Of the draws; empty where nothing was drawn.
        evaluation: The engine's scores; over several seeds their mean.
        spread: Of every score over the seeds; None for a single run.
        reference_evaluation: The reference's scores, as the engine's.
        band: Of the reference over its seeds.
        equivalence: Of all runs of this mode together.
        audit: Of the hard decisions, with the first seed.
    """

    mode: ModeName
    seeds: tuple[int, ...]
    evaluation: Evaluation
    spread: Mapping[str, Spread] | None = None
    reference_evaluation: Evaluation | None = None
    band: Band | None = None
    equivalence: Equivalence | None = None
    audit: Audit | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        parts = (self.evaluation, self.reference_evaluation, self.band, self.equivalence, self.audit)
        names = ("evaluation", "reference_evaluation", "band", "equivalence", "audit")
        spread = None if self.spread is None else {name: value.to_json() for name, value in self.spread.items()}
        found = {name: None if part is None else part.to_json() for name, part in zip(names, parts, strict=True)}
        return {"mode": self.mode, "seeds": list(self.seeds), "spread": spread, **found}


def asked_from_dataset(dataset: DataSet) -> Asked:
    """The utterances of a data set, in its own order.

    Raises:
        DataError: There is none, or one without a label.
    """
    known = {u.id: (d.id, u.label) for d in dataset.dialogues for u in d.utterances}
    dialogues, labels = [known[id_][0] for id_ in dataset.order], [known[id_][1] for id_ in dataset.order]
    return Asked(dataset.order, tuple(dialogues), tuple(checked_labels(dataset.order, labels).tolist()))


def modes_from_draws(
    asked: Asked,
    draws: Sequence[Draw],
    mode: ModeName,
    seeds: Sequence[int],
    architecture: Architecture,
    *,
    tau: float = 1.0,
    threshold: float = 0.2,
    margin: float = 0.005,
    published: float | None = None,
) -> tuple[Mode, ...]:
    """Judges runs that differ in nothing but their noise. The first mode is the one that a verdict is about.

    Several seeds give two: `seeded`, where F1 is the mean over the seeds, and `mean`.

    Args:
        asked: What they answered, in this order.
        draws: One or more; all with a reference, or none.
        mode: Of these draws.
        seeds: Theirs, one a draw; empty where nothing was drawn.
        architecture: Of the model.
        tau: Of its face gate.
        threshold: Of its face gate.
        margin: See `equivalence`.
        published: See `reference_band`.

    Raises:
        NotEquivalentError: Logits that are not finite.
    """
    logits = np.stack([_logits(draw.answers) for draw in draws])
    references = [_logits(draw.reference) for draw in draws if draw.reference is not None]
    reference = np.stack(references) if references else None
    judged = _judged(asked, mode, seeds, logits, reference, margin, published)
    first = draws[0]
    if first.reference is not None:
        audited = audit(
            first.reference,
            first.answers,
            asked.labels,
            vision_length=architecture.vision_length,
            tau=tau,
            threshold=threshold,
            noise=first.noise,
        )
        judged = replace(judged, audit=audited)
    if len(draws) == 1:
        return (judged,)
    averaged = None if reference is None else mean_logits(reference)[None]
    return judged, _judged(asked, "mean", seeds, mean_logits(logits)[None], averaged, margin, None)


def mean_logits(logits: FloatArray) -> DoubleArray:
    """(U, 7): logarithms of the probabilities' mean over the draws (K, U, 7)."""
    mean: DoubleArray = np.log(probabilities(logits).mean(axis=0))
    return mean


def _judged(
    asked: Asked,
    mode: ModeName,
    seeds: Sequence[int],
    logits: FloatArray | DoubleArray,
    reference: FloatArray | DoubleArray | None,
    margin: float,
    published: float | None,
) -> Mode:
    """All but the audit; logits are (K, U, 7)."""
    runs = [evaluate(asked.utterances, asked.labels, rows) for rows in logits]
    several = len(runs) > 1
    found = Mode(mode, tuple(seeds), mean_evaluation(runs), over_seeds(runs) if several else None)
    if reference is None:
        return found
    right = [evaluate(asked.utterances, asked.labels, rows) for rows in reference]
    f1 = [[run.weighted_f1 for run in side] for side in (right, runs)]
    return replace(
        found,
        reference_evaluation=mean_evaluation(right),
        band=reference_band(f1[0], f1[1], published) if several else None,
        equivalence=equivalence(asked.utterances, asked.dialogues, asked.labels, reference, logits, margin=margin),
    )


def _logits(answers: Sequence[Prediction]) -> FloatArray:
    return np.stack([answer.logits for answer in answers])
