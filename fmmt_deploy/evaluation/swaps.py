"""The swap matrix: every mixture of reference and engine, and which graph a difference of F1 comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from fmmt_deploy.evaluation.evaluation import checked_labels
from fmmt_deploy.evaluation.scores import CLASSES, DoubleArray, confusion_matrix, weighted_f1
from fmmt_deploy.evaluation.shapley import shapley_shares
from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.evaluation.swapped import Side, SwappedRuns
from fmmt_deploy.evaluation.swaps_words import words_about
from fmmt_deploy.types import DataSet, GraphName, IntArray

__all__ = ["SwapMatrix", "SwapRow", "swap_matrix"]

RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True, slots=True)
class SwapRow:
    """One mixture.

    Attributes:
        sides: Whose each graph is.
        f1: Weighted F1, 0 to 1.
        difference: To the reference throughout.
        changed: Decisions that differ from the reference's, ties included.
        error: Root mean square of the logits' difference to the reference's.
    """

    sides: Mapping[GraphName, Side]
    f1: float
    difference: float
    changed: int
    error: float


@dataclass(frozen=True, slots=True)
class SwapMatrix:
    """All mixtures, and each graph's share (Shapley's) in what the engine does as a whole.

    Attributes:
        rows: The reference throughout first, the engine throughout last.
        shares: Of the difference of F1; they add up to it.
        intervals: Of those shares, by a bootstrap over dialogues; empty where all utterances are of one dialogue.
        changed_shares: Of the number of changed decisions.
        error_shares: Of the logits' mean squared error, as parts of 1; all 0 where there is none. A share below 0
            says that the graph's error makes up for another's.
        words: Who is to blame, in a sentence or two.
    """

    rows: tuple[SwapRow, ...]
    shares: Mapping[GraphName, float]
    intervals: Mapping[GraphName, Interval]
    changed_shares: Mapping[GraphName, float]
    error_shares: Mapping[GraphName, float]
    words: str

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        rows = [{**row.sides, **{k: v for k, v in asdict(row).items() if k != "sides"}} for row in self.rows]
        return asdict(self) | {"rows": rows}


def swap_matrix(runs: SwappedRuns, dataset: DataSet, *, seed: int = 0) -> SwapMatrix:
    """The matrix of mixtures that were run already.

    Args:
        runs: Their answers.
        dataset: What they answered, with labels.
        seed: Of the bootstrap.

    Raises:
        DataError: There is no utterance, or one without a label.
    """
    known = {u.id: (u.label, d.id) for d in dataset.dialogues for u in d.utterances}
    labels = checked_labels(runs.utterances, [known[u][0] for u in runs.utterances])
    _, dialogues = np.unique([known[u][1] for u in runs.utterances], return_inverse=True)
    logits = runs.logits
    decisions = logits.argmax(axis=2)
    f1 = np.array([float(weighted_f1(confusion_matrix(labels, row))) for row in decisions])
    changed = (decisions != decisions[0]).sum(axis=1)
    squares = np.square(logits.astype(np.float64) - logits[0]).mean(axis=(1, 2))
    shares, changed_shares, error_shares = (
        _shares(runs, values) for values in (f1, changed.astype(np.float64), squares / (squares[-1] or 1.0))
    )
    intervals = _intervals(runs, labels, decisions, dialogues, seed)
    rows = tuple(
        SwapRow(dict(zip(runs.graphs, row, strict=True)), float(f), float(f - f1[0]), int(n), float(np.sqrt(s)))
        for row, f, n, s in zip(runs.rows, f1, changed, squares, strict=True)
    )
    words = words_about(rows[-1].difference, rows[-1].changed, shares, intervals, error_shares)
    return SwapMatrix(rows, shares, intervals, changed_shares, error_shares, words)


def _shares(runs: SwappedRuns, values: DoubleArray) -> dict[GraphName, float]:
    """Each graph's share of what the last row has more than the first, (R,)."""
    return dict(zip(runs.graphs, shapley_shares(runs.joined, values).tolist(), strict=True))


def _intervals(
    runs: SwappedRuns, labels: IntArray, decisions: IntArray, dialogues: IntArray, seed: int
) -> dict[GraphName, Interval]:
    """Percentile interval of each graph's share over resampled dialogues; none for a single dialogue.

    Args:
        runs: The mixtures.
        labels: (U,).
        decisions: (R, U).
        dialogues: (U,), numbers from 0.
        seed: Of the draws.
    """
    count = int(dialogues.max()) + 1
    if count < 2:
        return {}
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    times = draws.astype(np.float64)  # exact for counts, and has a fast matrix product
    f1 = []
    for row in decisions:
        cells = (dialogues * CLASSES + labels) * CLASSES + row
        held = np.bincount(cells, minlength=count * CLASSES**2).reshape(count, CLASSES**2)
        confusions = (times @ held.astype(np.float64)).astype(np.int64)
        f1.append(weighted_f1(confusions.reshape(-1, CLASSES, CLASSES)))
    shares: DoubleArray = shapley_shares(runs.joined, np.stack(f1))
    low, high = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    return {graph: Interval(float(a), float(b), CONFIDENCE) for graph, a, b in zip(runs.graphs, low, high, strict=True)}
