"""May the engine replace the reference? The difference of weighted F1 with its uncertainty, and a verdict by margin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import NotEquivalentError, UsageError
from fmmt_deploy.evaluation.changes import changed_decisions, flip_counts
from fmmt_deploy.evaluation.evaluation import checked_labels, checked_logits
from fmmt_deploy.evaluation.resampling import Resamples, f1_of_tallies, resampled, tallies
from fmmt_deploy.evaluation.scores import CLASSES, DoubleArray
from fmmt_deploy.evaluation.significance import Interval, mcnemar
from fmmt_deploy.evaluation.verdict import ClassDifference, Equivalence, Verdict
from fmmt_deploy.types import EMOTIONS, IntArray

__all__ = ["check_settings", "equivalence"]

_UNSEEN_SHARE, _UNSEEN_LEAST = 1 / 4, 3
"""Of the dialogue that an utterance is usually in, and decisions at least, that one which was not seen loses or wins,
before the seen ones say more; see `_group`."""

_POWER = 0.8


def equivalence(
    utterances: Sequence[str],
    dialogues: Sequence[str],
    labels: Sequence[int | None],
    reference_logits: NDArray[np.floating],
    logits: NDArray[np.floating],
    *,
    margin: float = 0.005,
    alpha: float = 0.05,
    seed: int = 0,
    resamples: int = 10_000,
) -> Equivalence:
    """Judges whether an engine's weighted F1 is the reference's, within a margin, for dialogues such as these.

    Two one-sided tests at level `alpha`: of a loss of `margin` or more, and of a gain. Both are rejected exactly if the
    interval with confidence 1 − 2 `alpha` lies within ± `margin`.

    The interval is a paired bootstrap over dialogues, with one addition. Where few decisions changed, a bootstrap sees
    few differences and takes them for all there are: without a single one, it would call engines equivalent on five
    utterances. So each resample also gives a share to one dialogue that was not seen, which loses some decisions for
    the interval's lower end, and wins them for its upper end. Without any change, the share that such dialogues may
    have is then that of Clopper and Pearson, 1 − alpha^(1/D), known as the rule of three; where some dialogues lose
    alike, the lower end is theirs, too; and with many changes the addition no longer matters. For values of any kind
    with known bounds this is the interval of Learned-Miller and Thomas (2019, arXiv:1905.06208). Here, the bound is
    estimated: as many decisions as a lost or won one usually has beside it in its dialogue, with itself, starting from
    3 in dialogues as long as MELD's, and from a quarter of longer ones. That is an assumption: what a set shows nothing
    of can't be bounded otherwise. An engine that fails in whole dialogues, but so rarely that there is none among D, is
    not found by this test, nor by any other on these data: such an engine passes more often than `alpha`.
    `scripts/verdict_simulation.py` shows how often interval and verdict are right.

    Args:
        utterances: (U,) ids.
        dialogues: (U,), each utterance's dialogue.
        labels: (U,), indices into `EMOTIONS`.
        reference_logits: (U, 7), or (K, U, 7) for K draws of the noise; then F1 is the mean over the draws.
        logits: Of the same shape, the k-th with the same noise as the reference's k-th.
        margin: Of weighted F1, 0 to 1.
        alpha: Level of each test, below 0.5.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        UsageError: A margin or level that makes no sense.
        DataError: There is no utterance, or one without a label.
        NotEquivalentError: Logits of another shape, or not all finite.
    """
    check_settings(margin, alpha)
    truth = checked_labels(utterances, labels)
    sides = (_draws(utterances, reference_logits, "reference's logits"), _draws(utterances, logits, "logits"))
    if len(sides[0]) != len(sides[1]):
        raise NotEquivalentError(
            f"Both sides must be drawn equally often, found {len(sides[0])} and {len(sides[1])} times."
        )
    reference, decisions = (side.argmax(axis=2) for side in sides)
    clusters = np.unique(np.asarray(dialogues), return_inverse=True)[1]
    held = tallies(truth, np.concatenate([reference, decisions]), clusters)
    drawn = resampled(held, seed=seed, resamples=resamples)
    class_f1, f1 = (np.split(scores, 2) for scores in f1_of_tallies(held.sum(axis=0)))
    group = _group(truth, reference, decisions, clusters)
    lost, won = (min(group, most) for most in _most(truth, reference, clusters))
    interval = _interval(drawn.differences, lost * drawn.unseen, won * drawn.unseen, alpha, float(f1[0].mean()))
    changed = changed_decisions(utterances, truth, *sides)
    return Equivalence(
        utterances=len(utterances),
        dialogues=len(held),
        draws=len(reference),
        margin=margin,
        alpha=alpha,
        resamples=resamples,
        reference_f1=float(f1[0].mean()),
        f1=float(f1[1].mean()),
        difference=float(f1[1].mean() - f1[0].mean()),
        interval=interval,
        unseen_decisions=group,
        verdict=_verdict(interval, margin),
        detectable=_detectable(drawn.differences, float(f1[1].mean() - f1[0].mean()), interval),
        changed=len(changed),
        ties=sum(change.tie for change in changed),
        flips=flip_counts(reference, decisions),
        largest_logit_difference=float(np.abs(sides[1] - sides[0]).max()),
        mcnemar=mcnemar(reference[0] == truth, decisions[0] == truth) if len(reference) == 1 else None,
        classes=_classes(held, class_f1[0].mean(axis=0), class_f1[1].mean(axis=0), drawn, alpha),
        changed_decisions=changed,
    )


def check_settings(margin: float, alpha: float = 0.05) -> None:
    """Says before any work is done whether a verdict could be given.

    Raises:
        UsageError: A margin or level that makes no sense.
    """
    if not 0 < margin < 1:
        raise UsageError(
            f"A margin must be above 0 and below 100 points of F1, found {100 * margin:g}.", fix="Try --margin 0.5."
        )
    if not 0 < alpha < 0.5:
        raise UsageError(f"A test's level must be above 0 and below 0.5, found {alpha:g}.", fix="0.05 is usual.")


def _draws(utterances: Sequence[str], logits: NDArray[np.floating], name: str) -> DoubleArray:
    """(K, U, 7), checked."""
    drawn = logits if logits.ndim == 3 and len(logits) else logits[None]
    return np.stack([checked_logits(utterances, rows, name) for rows in drawn]).astype(np.float64)


def _group(labels: IntArray, reference: IntArray, decisions: IntArray, clusters: IntArray) -> float:
    """How many decisions the dialogue that was not seen loses: as many as a lost or won one usually comes with.

    That is the mean over net losses and wins of how many their dialogue has, Σ n² / Σ |n|. What was seen is joined by
    one dialogue for what a set with few changes can't know: it loses a quarter of the dialogue that an utterance is
    usually in, and 3 at least. In MELD that is 3. Of longer dialogues it is more: else one of 1,000 utterances would
    do for a proof.

    Args:
        labels: (U,).
        reference: (K, U).
        decisions: (K, U).
        clusters: (U,), numbers from 0.
    """
    gained = ((decisions == labels).astype(np.float64) - (reference == labels)).mean(axis=0)
    net, lengths = np.abs(np.bincount(clusters, gained)), np.bincount(clusters)
    assumed = max(_UNSEEN_LEAST, round(_UNSEEN_SHARE * float((lengths**2).sum() / lengths.sum())))
    usual = ((net**2).sum() + assumed**2) / (net.sum() + assumed)
    return min(max(1.0, float(usual)), float(lengths.max()))


def _most(labels: IntArray, reference: IntArray, clusters: IntArray) -> tuple[float, float]:
    """What a dialogue can lose and win at most: as many decisions as the reference has right, and wrong, in any one."""
    right = (reference == labels).mean(axis=0)
    return float(np.bincount(clusters, right).max()), float(np.bincount(clusters, 1 - right).max())


def _classes(
    held: DoubleArray, reference_f1: DoubleArray, f1: DoubleArray, drawn: Resamples, alpha: float
) -> tuple[ClassDifference, ...]:
    """A dialogue that was not seen loses or wins one decision of the class here."""

    def difference(i: int) -> ClassDifference:
        before, after = float(reference_f1[i]), float(f1[i])
        hit = drawn.unseen_classes[:, i]
        interval = _interval(drawn.classes[:, i], hit, hit, alpha, before)
        return ClassDifference(EMOTIONS[i], int(held[:, i].sum()), before, after, after - before, interval)

    return tuple(difference(i) for i in range(CLASSES))


def _interval(
    differences: DoubleArray, lost: DoubleArray, won: DoubleArray, alpha: float, reference_f1: float
) -> Interval:
    """No F1 is below 0 or above 1."""
    low, high = np.quantile(differences - lost, alpha), np.quantile(differences + won, 1 - alpha)
    return Interval(max(float(low), -reference_f1), min(float(high), 1 - reference_f1), 1 - 2 * alpha)


def _verdict(interval: Interval, margin: float) -> Verdict:
    if -margin < interval.low and interval.high < margin:
        return "EQUIVALENT"
    return "DIFFERENT" if interval.high < -margin or interval.low > margin else "INCONCLUSIVE"


def _detectable(differences: DoubleArray, difference: float, interval: Interval) -> float:
    """The interval's longer arm, and as far from 0 as such a set's difference is in four of five cases; 1 at most."""
    scatter = np.quantile(np.abs(differences - differences.mean()), _POWER)
    return min(1.0, float(max(difference - interval.low, interval.high - difference) + scatter))
