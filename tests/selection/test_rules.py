"""The rules by which precisions are chosen, against the project's goals."""

from collections.abc import Mapping

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.selection.rules import EQUIVALENCE_RULES


def test_the_rules_allow_the_published_agreement() -> None:
    """performance.md's goals: float32 99.9 %, FP16 99.5 %, INT8 98 % of decisions; a rule is never stricter at less."""
    shares: Mapping[Precision, float] = {"fp32": 0.001, "fp16": 0.005, "int8": 0.02}
    assert {name: EQUIVALENCE_RULES[name].max_changed_share for name in shares} == shares
    ordered = [EQUIVALENCE_RULES[name] for name in ("fp32", "fp16", "bf16", "int8")]
    drops = [rule.max_f1_drop for rule in ordered]
    assert drops == sorted(drops)
    assert len({rule.tie_margin for rule in ordered}) == 1
