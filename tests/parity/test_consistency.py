"""Engines against themselves."""

from collections.abc import Callable

import pytest

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.parity.consistency import self_consistency
from tests.models import ON_CPU

Bundles = Callable[[str], Bundle]


@pytest.mark.parametrize("kind", ON_CPU)
@pytest.mark.parametrize("model", ["roberta", "bert", "unimodal"])
def test_right_engines_pass(tiny_bundle: Bundles, model: str, kind: EngineKind) -> None:
    bundle = tiny_bundle(model)
    stages = read_self_test(bundle.path / "self_test.npz")
    with open_engines(bundle, kind, threads=1) as engines:
        report = self_consistency(bundle.manifest.architecture, engines, stages)
    report.raise_unless_passed()
