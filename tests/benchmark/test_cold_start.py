"""Cold start in processes of their own."""

from collections.abc import Callable

import numpy as np
import pytest

from fmmt_deploy.benchmark import cold_start as module
from fmmt_deploy.benchmark.choices import choice_from_option
from fmmt_deploy.benchmark.cold_start import ColdStart, Start, cold_start
from fmmt_deploy.benchmark.validity import Validity
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import FmmtError

Bundles = Callable[[str], Bundle]


def test_figures_are_those_of_a_process_of_its_own(tiny_bundle: Bundles) -> None:
    ballast = np.ones(400_000_000 // 8)
    bundle = tiny_bundle("roberta")
    found = cold_start(bundle.path, choice_from_option("ort", bundle.manifest.architecture), 1)
    (start,) = found.starts
    assert ballast.nbytes == 400_000_000
    assert 30_000_000 < start.peak_bytes < 400_000_000
    assert start.open_ms > 20  # Python alone takes longer than that
    assert start.first_ms > 0
    assert start.steady_ms > 0
    assert start.gpu_bytes is None


def test_of_several_processes_the_median_is_told() -> None:
    starts = tuple(Start(ms, 10 * ms, ms / 10, 100, 7) for ms in (3.0, 1.0, 2.0))
    told = ColdStart("trt", starts).to_json(Validity(("busy",)))
    assert (told["open_ms"], told["first_ms"], told["steady_ms"]) == (2.0, 20.0, 0.2)
    assert (told["peak_bytes"], told["gpu_bytes"]) == (100, 7)
    assert (told["valid"], told["reasons"]) == (False, ["busy"])
    assert ColdStart("ort", (Start(1, 1, 1, 1, None),)).median("gpu_bytes") is None


def test_a_process_that_fails_says_why(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    choice = choice_from_option("ort:fp16", bundle.manifest.architecture)
    with pytest.raises(FmmtError, match="cold start of ort:fp16 failed") as caught:
        cold_start(bundle.path, choice, 1)
    assert "fp16" in caught.value.why


def test_answers_are_repeated_for_a_while() -> None:
    """At least three times, at most twenty, and no longer than a second."""
    for ms, expected in ((2000.0, 3), (300.0, 4), (1.0, 20)):
        assert len(module._repeated(lambda ms=ms: ms)) == expected  # type: ignore[misc]
