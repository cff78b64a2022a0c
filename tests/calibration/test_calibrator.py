"""The calibrator: as many passes over the data as are needed, and none twice."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration import collection
from fmmt_deploy.calibration.calibrator import Calibrator
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.calibration.settings import CalibrationSettings
from tests.calibration.streamed import Cases, cases_of
from tests.calibration.talk import Talk

Bundles = Callable[[str], Bundle]
MAX = CalibrationSettings(method="max", smooth=())


class Counted:
    """Cases, and from where on they were asked for."""

    def __init__(self, cases: Cases) -> None:
        self.passes: list[int] = []
        self._cases = cases

    def __call__(self, first: int = 0) -> Iterator[CaseInputs]:
        self.passes.append(first)
        return self._cases(first)


def test_one_pass_for_all_graphs_and_precisions(tiny_bundle: Bundles, talk: Talk) -> None:
    bundle = tiny_bundle("roberta")
    cases, said = Counted(cases_of(bundle, talk.train)), []
    calibrator = Calibrator(bundle, ["plm", "fusion"], cases, "data", MAX, 1, status=said.append)
    assert cases.passes == []
    made = calibrator("plm", "int8")
    assert calibrator("plm", "int8-fp32") is made  # the same integers, whatever is around them
    assert calibrator("fusion", "int8").graph == "fusion"
    eights = calibrator("plm", "fp8")
    assert {n: s.threshold for n, s in eights.inputs.items()} == {n: s.threshold for n, s in made.inputs.items()}
    assert cases.passes == [0]
    assert said[0] == "collecting what products read, on float32 graphs"


def test_one_more_for_what_is_smoothed(tiny_bundle: Bundles, talk: Talk) -> None:
    bundle = tiny_bundle("unimodal")
    cases = Counted(cases_of(bundle, talk.train))
    settings = CalibrationSettings(method="max", smooth=("unimodal",))
    calibrator = Calibrator(bundle, ["unimodal"], cases, "data", settings, 1)
    found = calibrator.calibrated("unimodal", "int8")
    assert cases.passes == [0, 0]
    assert found.smoothed is not None
    smoothed = [name for name, scale in found.calibration.inputs.items() if scale.smoothing is not None]
    assert set(smoothed) == set(found.smoothed.smoothing) != set()
    for name, scale in found.calibration.inputs.items():
        seen = (found.smoothed if scale.smoothing is not None else found.statistics).inputs[name]
        assert scale.threshold == pytest.approx(seen.column_largest.max(), rel=1e-6)
    for name in smoothed:  # which is what was seen, divided
        plain, factors = found.statistics.inputs[name].column_largest, found.smoothed.smoothing[name]
        np.testing.assert_allclose(found.smoothed.inputs[name].column_largest, plain / factors, rtol=1e-5)


def test_another_calibrator_takes_it_up(
    tiny_bundle: Bundles, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is saved, and none of it read again; of other data, seeds and graphs, all is."""
    monkeypatch.setattr(collection, "SAVE_SECONDS", 0)
    bundle = Bundle.open(Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")))
    cases = Counted(cases_of(bundle, talk.train))
    total = len(list(cases(0)))
    first = Calibrator(bundle, ["unimodal"], cases, "data", MAX, 1)
    made = first("unimodal", "int8")
    for data, settings, expected in (
        ("data", MAX, total),
        ("data", CalibrationSettings(method="mse", smooth=()), total),  # which is chosen afterwards
        ("data", CalibrationSettings(method="max", smooth=(), seed=1), 0),
        ("other", MAX, 0),
    ):
        again = Calibrator(bundle, ["unimodal"], cases, data, settings, 1)
        found = again("unimodal", "int8")
        assert cases.passes[-1] == expected
        if settings == MAX:
            assert {n: s.threshold for n, s in found.inputs.items()} == {n: s.threshold for n, s in made.inputs.items()}
    assert [path.name for path in tmp_path.iterdir() if path.name != "bundle"] == [".bundle.calibration-all.npz"]
    first.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
