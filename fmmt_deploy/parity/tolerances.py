"""How far an engine's outputs may be from the float32 reference's: one table, by precision and stage, with the reasons.

The rule is `|actual − reference| − rtol · |reference| ≤ atol` for every element, as in `numpy.isclose`: `atol` covers
values near zero, `rtol` the rounding of large ones. Lower precisions are from measurements with the engine `emulated`
(docs/numerics.md). Eight bits make noise of 5 % to 20 % in what these models say of a face: such a tolerance finds an
engine that is broken, not one that is a little worse than it should be, which decisions, F1 and SQNRs do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.types import GraphName

__all__ = ["EXACT", "TOLERANCES", "Agreement", "StageTolerances", "Tolerance", "coarsest"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What an element of a tensor may differ by, and why."""

    atol: float
    rtol: float
    reason: str

    def __str__(self) -> str:
        return f"{self.atol:.0e}+{self.rtol:.0e}|x|" if self.rtol else f"{self.atol:.0e}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The smallest share of utterances that must agree, and why."""

    min_share: float
    reason: str


@dataclass(frozen=True, slots=True)
class StageTolerances:
    """What each stage of a model may differ by.

    Attributes:
        face_logits: The Swin's `(N, 7)`.
        token_states: The text encoder's `(D, T, H)`, on real tokens.
        logits: The end-to-end `(U, 7)`, also the unimodal model's.
        kept: Utterances whose kept faces are the same.
        decisions: Utterances decided the same way.
    """

    face_logits: Tolerance
    token_states: Tolerance
    logits: Tolerance
    kept: Agreement
    decisions: Agreement

    def of(self, graph: GraphName) -> dict[str, Tolerance]:
        """A graph's float outputs by name."""
        match graph:
            case "swin":
                return {"face_logits": self.face_logits}
            case "plm":
                return {"token_states": self.token_states}
            case "fusion" | "unimodal":
                return {"logits": self.logits}


EXACT = Tolerance(0.0, 0.0, "integers and masks are equal or wrong")

_TEXT = "not below BF16's: golden text came within {}, but in two layers without the outliers of trained ones"
_KEPT = Agreement(0.98, "a face near the threshold may pass on one side only")

_INT8 = StageTolerances(
    face_logits=Tolerance(5e-1, 1e-1, "twice the 2.4e-1 measured on golden faces beside a tenth of each"),
    token_states=Tolerance(1e-1, 1e-1, _TEXT.format("4.0e-3")),
    logits=Tolerance(1e-1, 1e-1, "over twice the 4.2e-2 measured on demo and golden data beside a tenth of each"),
    kept=_KEPT,
    decisions=Agreement(0.98, "the goal for INT8"),
)
"""Steps of 1/127 of the largest number of a tensor; judged by decisions and F1, too."""

_FP8 = StageTolerances(
    face_logits=Tolerance(1.6, 1e-1, "twice the 7.8e-1 measured on golden faces beside a tenth of each: 14 to 22 dB"),
    token_states=Tolerance(2e-1, 1e-1, _TEXT.format("8.4e-3, twice INT8's")),
    logits=Tolerance(6e-1, 1e-1, "over twice the 2.7e-1 measured on demo and golden data beside a tenth of each"),
    kept=_KEPT,
    decisions=Agreement(0.98, "as for INT8"),
)
"""Steps of 1/16 of each number: coarser than INT8 where no number is much larger than the others."""

TOLERANCES: Mapping[Precision, StageTolerances] = {
    "fp32": StageTolerances(
        face_logits=Tolerance(5e-5, 1e-5, "an independent float32 model met the golden data within 1.4e-5"),
        token_states=Tolerance(5e-5, 1e-5, "24 layers, each a sum of up to 4,096 products in another order"),
        logits=Tolerance(2e-5, 0.0, "promised end to end; an independent float32 model came within 1.2e-6"),
        kept=Agreement(1.0, "the gate is float32 in every engine and golden masks are met exactly"),
        decisions=Agreement(0.999, "only ties may turn; 1 in 1,000 for ties just outside the margin"),
    ),
    "fp16": StageTolerances(
        face_logits=Tolerance(2e-2, 5e-3, "twice the 9.2e-3 measured on golden faces, rounding as the graph says"),
        token_states=Tolerance(1e-2, 5e-3, "twice the 4.6e-3 measured at full size, rounding as the graph says"),
        logits=Tolerance(5e-3, 2e-3, "over twice the 2.0e-3 measured on golden data, rounding as the graph says"),
        kept=Agreement(0.995, "a face near the threshold may pass on one side only"),
        decisions=Agreement(0.995, "the goal for FP16"),
    ),
    "bf16": StageTolerances(
        face_logits=Tolerance(1.6e-1, 4e-2, "8 times FP16, as the unit roundoff; 7.6e-2 was measured"),
        token_states=Tolerance(8e-2, 4e-2, "8 times FP16, as the unit roundoff; 4.3e-2 was measured"),
        logits=Tolerance(4e-2, 1.6e-2, "8 times FP16, as the unit roundoff; 1.6e-2 was measured"),
        kept=Agreement(0.99, "between FP16 and INT8"),
        decisions=Agreement(0.99, "between FP16 and INT8"),
    ),
    "int8-fp32": _INT8,
    "int8": _INT8,
    "fp8": _FP8,
}


def coarsest(precisions: Iterable[Precision]) -> Precision:
    """The one of them with the widest tolerances: what end-to-end outputs of graphs in mixed precision are held to."""
    return max(precisions, key=PRECISIONS.index)
