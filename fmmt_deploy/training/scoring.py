"""How good the best epoch of a training is: scores of each split without noise, and spread under the published one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmmt_deploy.evaluation.evaluation import Evaluation, Spread, over_seeds
from fmmt_deploy.types import DataSet

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["NOISE_SEEDS", "SplitScores", "score_split"]

NOISE_SEEDS = tuple(range(5))
"""Of the Gumbel noise that the best epoch is scored under, beside none."""


@dataclass(frozen=True, slots=True)
class SplitScores:
    """How good the best epoch is on a split.

    Attributes:
        plain: Without noise.
        gumbel: Every score over `NOISE_SEEDS`; None of a model that reads no faces' logits.
    """

    plain: Evaluation
    gumbel: Mapping[str, Spread] | None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        noisy = None
        if self.gumbel is not None:
            noisy = {
                "seeds": list(NOISE_SEEDS),
                "spread": {name: spread.to_json() for name, spread in self.gumbel.items()},
            }
        return {"none": self.plain.to_json(), "gumbel": noisy}


def score_split(model: ReferenceModel, tokenizer: str | None, split: DataSet, device: str) -> SplitScores:
    """Scores a model on a split, as `fmmt eval` does.

    Args:
        model: On the device.
        tokenizer: Content of its `tokenizer.json`, where it reads text.
        split: With labels.
        device: `cpu` or `cuda`.

    Raises:
        FmmtError: See `validation.evaluate_model`.
    """
    from fmmt_deploy.training.validation import evaluate_model

    plain = evaluate_model(model, tokenizer, split, "none", 0, device)
    if model.architecture.swin is None:
        return SplitScores(plain, None)
    noisy = [evaluate_model(model, tokenizer, split, "gumbel", seed, device) for seed in NOISE_SEEDS]
    return SplitScores(plain, over_seeds(noisy))
