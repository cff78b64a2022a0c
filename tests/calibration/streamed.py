"""Calibration data as `fmmt calibrate` streams them."""

from collections.abc import Callable, Iterator

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.observing import CaseInputs
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.parity.run import cases_from_dataset
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet
from tests.calibration.talk import of_dialogues

Cases = Callable[[int], Iterator[CaseInputs]]


def cases_of(bundle: Bundle, data: DataSet, dialogues: int = 3) -> Cases:
    """Of the first dialogues."""
    pipeline, few = Pipeline(bundle, Engines("emulated", {}), threads=1), of_dialogues(data.dialogues[:dialogues])

    def cases(first: int = 0) -> Iterator[CaseInputs]:
        for case in cases_from_dataset(pipeline, few, no_noise, first):
            yield case.by_graph()

    return cases
