"""Quantiles of Student's t are SciPy's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from fmmt_deploy.student import student_quantile


@given(probability=st.floats(0.5, 0.9999), freedom=st.one_of(st.integers(1, 40), st.integers(41, 600)))
@settings(max_examples=100, deadline=None)
def test_quantiles_are_scipys(probability: float, freedom: int) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-6, abs=1e-9)
