"""What a new graph is held against, and that it is held against something."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.examples import check_sqnr, examples_from_cases
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity.run import cases_from_self_test

Bundles = Callable[[str], Bundle]


def test_faces_are_looked_for_where_the_first_batches_have_none(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    stages = self_test_of(bundle)
    (case,) = cases_from_self_test(stages)
    read: list[int] = []

    def cases(with_faces: int, behind: int) -> list[CaseInputs]:
        blind = replace(case, swin=None).by_graph()
        return [*[blind] * 5, *[case.by_graph()] * with_faces, *[blind] * behind]

    def counted(given: list[CaseInputs]) -> object:
        for number, one in enumerate(given):
            read.append(number)
            yield one

    found = examples_from_cases(bundle, ("swin",), counted(cases(3, 9)), 1, count=2)  # type: ignore[arg-type]
    assert len(found["swin"]) == 2
    assert len(read) == 7  # and no more
    np.testing.assert_allclose(
        found["swin"][1].outputs["face_logits"], stages["swin"].outputs["face_logits"], rtol=0, atol=1e-4
    )
    few = examples_from_cases(bundle, ("swin", "plm"), cases(1, 3), 1, count=2)
    assert (len(few["swin"]), len(few["plm"])) == (1, 1)  # all have the same text


def test_an_answer_needs_enough_signal_and_to_be_there() -> None:
    check_sqnr("plm", "int8", {"token_states": 10.0})
    for db in (9.9, float("nan"), float("-inf")):
        with pytest.raises(ParityError, match=r"token_states has .* dB"):
            check_sqnr("plm", "int8", {"token_states": db})
    with pytest.raises(ParityError, match="swin in int8 was held against nothing"):
        check_sqnr("swin", "int8", {})
