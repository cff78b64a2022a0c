"""A small bundle with graphs in every precision, quantised by the largest values of its own self-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.cast import cast_bundle
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.formats import FORMATS
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.types import GraphName


def lowered_bundle(bundle: Bundle, out: Path, precisions: Mapping[GraphName, Sequence[Precision]]) -> Bundle:
    """A copy of a bundle with more graphs; nobody has looked at how well they answer."""
    drafts = []
    for graph, wanted in precisions.items():
        calibration = calibration_of(bundle, graph)
        for precision in wanted:
            found = None if FORMATS[precision].operands is None else calibration
            drafts.append(draft_in(graph, bundle.graph(graph), precision, (), found))
    return cast_bundle(bundle, drafts, accept=lambda *_: None, out=out)


def calibration_of(bundle: Bundle, graph: GraphName) -> Calibration:
    """Thresholds at the largest values of the self-test."""
    seen: dict[str, float] = {}
    inputs = read_self_test(bundle.path / "self_test.npz")[graph].inputs
    path = bundle.graph(graph)
    engine_from_onnx(graph, path, 1, lambda name, t: seen.update({name: float(t.float().abs().max())})).run(inputs)
    sites = sites_of(GraphView(onnx.load(path, load_external_data=False)))
    return Calibration(graph, {s.input: InputScale(s.input, seen[s.input] or 1.0) for s in sites})
