import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.calibration.requirements import Requirement, check_requirement, requirement_from_option
from fmmt_deploy.errors import PrecisionError, UsageError


@given(precision=st.sampled_from(PRECISIONS), share=st.decimals(0, 1, places=4))
def test_written_and_read(precision: Precision, share: float) -> None:
    expected = Requirement(precision, float(share))
    assert requirement_from_option(f"{precision}>={share}") == expected
    assert requirement_from_option(f" {precision} >= {share} ") == expected
    assert requirement_from_option(str(expected)) == expected


def test_percent() -> None:
    assert requirement_from_option("bf16>=95%") == Requirement("bf16", 0.95)


@pytest.mark.parametrize(
    "text", ["", "fp16", "fp16=0.9", "fp16>0.9", "fp15>=0.9", "fp16>=", "fp16>=1.1", "fp16>=-1", "fp16>=nan", "x"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a requirement"):
        requirement_from_option(text)


def test_met_or_not() -> None:
    shares: dict[Precision, float] = {"fp16": 0.9, "fp32": 0.1}
    check_requirement(Requirement("fp16", 0.9), shares, "swin")
    check_requirement(Requirement("bf16", 0.0), shares, "swin")
    with pytest.raises(PrecisionError, match=r"swin has 90\.00% .* fp16; 90\.10% were required") as caught:
        check_requirement(Requirement("fp16", 0.901), shares, "swin")
    assert caught.value.exit_code == 9
    for others in ({}, {"fp16": math.nan}):
        with pytest.raises(PrecisionError):
            check_requirement(Requirement("fp16", 0.1), others, "swin")
