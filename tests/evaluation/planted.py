"""Test sets of MELD's size and mix with an engine of known loss: what a verdict should say of them is known.

A set has 280 dialogues with 2,610 utterances. Labels, the reference's errors and the engine's flips each come in
dialogues: two utterances of one dialogue are alike more often than two of different ones, through a normal variable
that they share (a Gaussian copula), which leaves the probability of each utterance as it is. So what the engine loses
in expectation is computed, not estimated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from fmmt_deploy.evaluation.equivalence import equivalence
from fmmt_deploy.evaluation.verdict import Equivalence
from fmmt_deploy.types import FloatArray, IntArray

SUPPORT = np.array([1256, 281, 50, 208, 402, 68, 345])
"""How often MELD's test set has each emotion, in the order of `EMOTIONS`."""
DIALOGUES, UTTERANCES = 280, int(SUPPORT.sum())
LONGEST = 33

RECALL = np.array([0.81, 0.61, 0.22, 0.42, 0.64, 0.30, 0.53])
"""The reference's; with `MISTAKES`, its weighted F1 is 0.66."""
MISTAKES = np.array(
    [
        [0.00, 0.20, 0.03, 0.20, 0.30, 0.02, 0.25],
        [0.50, 0.00, 0.04, 0.06, 0.20, 0.03, 0.17],
        [0.45, 0.20, 0.00, 0.15, 0.05, 0.05, 0.10],
        [0.60, 0.08, 0.03, 0.00, 0.07, 0.04, 0.18],
        [0.70, 0.12, 0.01, 0.05, 0.00, 0.01, 0.11],
        [0.45, 0.10, 0.03, 0.10, 0.07, 0.00, 0.25],
        [0.50, 0.15, 0.03, 0.10, 0.17, 0.05, 0.00],
    ]
)
"""Which class a wrong decision is for, by the true class."""

ALIKE_LABELS, ALIKE_ERRORS = 0.3, 0.2
"""Correlation of the variables that utterances of one dialogue share."""

Labelled = tuple[IntArray, IntArray, IntArray]
"""Labels, the reference's decisions, the engine's decisions; (N, U) each."""


@dataclass(frozen=True)
class Planted:
    """An engine that loses so much, in expectation.

    Attributes:
        loss: Of weighted F1, 0 to 1.
        flips: Share of decisions that it changes if it loses nothing: as many for the better as for the worse. What
            it loses comes from further right decisions that become wrong.
        alike: How much its flips come in dialogues; 0 is not at all.
    """

    loss: float
    flips: float
    alike: float = 0.2

    @cached_property
    def rates(self) -> tuple[float, float]:
        """Of right decisions that become wrong, and of wrong ones that become right."""
        if self.flips == 0:
            return (self._worse(0.0, self.loss) if self.loss else 0.0), 0.0
        better = brentq(lambda rate: changed(self._worse(rate, 0.0), rate) - self.flips, 0, 0.3)
        return self._worse(better, self.loss), better

    @staticmethod
    def _worse(better: float, loss: float) -> float:
        return float(brentq(lambda rate: f1_lost(rate, better) - loss, 0, 0.5))

    def sets(self, count: int, seed: int) -> Labelled:
        """So many test sets."""
        random = np.random.default_rng(seed)
        labels = picked(alike(random, count, ALIKE_LABELS), SUPPORT / UTTERANCES)
        right = alike(random, count, ALIKE_ERRORS) < RECALL[labels]
        reference = np.where(right, labels, mistaken(random, labels))
        worse, better = self.rates
        flipped = alike(random, count, self.alike) < np.where(right, worse, better)
        other = np.where(right, mistaken(random, labels), labels)
        return labels, reference, np.where(flipped, other, reference)

    def judged(
        self, count: int, seed: int = 0, resamples: int = 1000, by_dialogue: bool = True
    ) -> Iterator[Equivalence]:
        """The verdicts on so many test sets; not by dialogue: as if utterances were independent."""
        dialogues = NAMES if by_dialogue else UTTERANCE_IDS
        for labels, reference, decisions in zip(*self.sets(count, seed), strict=True):
            yield equivalence(
                UTTERANCE_IDS, dialogues, labels.tolist(), onehot(reference), onehot(decisions), resamples=resamples
            )


def lengths() -> IntArray:
    """How many utterances each dialogue has, spread as MELD's are: 1 to 33, half of them below 9."""
    random = np.random.default_rng(0)
    found = np.clip(random.negative_binomial(2.2, 0.21, DIALOGUES) + 1, 1, LONGEST)
    while (missing := UTTERANCES - int(found.sum())) != 0:
        which = random.integers(DIALOGUES)
        found[which] = np.clip(found[which] + np.sign(missing), 1, LONGEST)
    return found


CLUSTERS = np.repeat(np.arange(DIALOGUES), lengths())
NAMES = [f"dia{cluster}" for cluster in CLUSTERS]
UTTERANCE_IDS = [f"{name}_utt{i}" for i, name in enumerate(NAMES)]


def alike(random: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    """(N, U) uniform numbers, alike within dialogues."""
    shared = random.standard_normal((count, DIALOGUES))[:, CLUSTERS]
    own = random.standard_normal((count, UTTERANCES))
    return np.asarray(ndtr(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own))


def picked(uniform: np.ndarray, shares: np.ndarray) -> IntArray:
    """Classes with those shares; (…,) from uniform numbers (…,)."""
    return np.asarray((uniform[..., None] > np.cumsum(shares, axis=-1)[..., :-1]).sum(axis=-1))


def mistaken(random: np.random.Generator, labels: IntArray) -> IntArray:
    return picked(random.random(labels.shape), MISTAKES[labels])


def expected(worse: float, better: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares of (label, decision), 7 × 7 each: the reference's, and an engine's with such rates."""
    label_shares = SUPPORT / UTTERANCES
    reference = label_shares[:, None] * (np.diag(RECALL) + (1 - RECALL)[:, None] * MISTAKES)
    right, wrong = np.diag(np.diag(reference)), reference - np.diag(np.diag(reference))
    lost = worse * np.diag(right)[:, None] * MISTAKES
    won = np.diag(better * wrong.sum(axis=1))
    return reference, (1 - worse) * right + lost + (1 - better) * wrong + won


def f1_lost(worse: float, better: float) -> float:
    before, after = expected(worse, better)
    return expected_f1(before) - expected_f1(after)


def changed(worse: float, better: float) -> float:
    """Share of decisions that change."""
    right = float((SUPPORT / UTTERANCES) @ RECALL)
    return worse * right + better * (1 - right)


def expected_f1(shares: np.ndarray) -> float:
    """Weighted F1 of shares 7 × 7, by its definition."""
    scores = [2 * shares[i, i] / (shares[i].sum() + shares[:, i].sum()) for i in range(len(shares))]
    return float(shares.sum(axis=1) @ scores)


def onehot(decisions: IntArray) -> FloatArray:
    """(U, 7): logits that decide so."""
    return np.eye(7, dtype=np.float32)[decisions]
