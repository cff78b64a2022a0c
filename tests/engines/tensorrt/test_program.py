"""Names of the graphs' axes, and of TensorRT's calls: those we make are there."""

import ast
import inspect
from collections.abc import Callable

import onnx
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import program, runtime_cache
from fmmt_deploy.engines.tensorrt.program import AXES
from tests.engines.tensorrt import simulated
from tests.models import TINY


@pytest.mark.parametrize("model", TINY)
def test_axes_are_those_of_the_graphs(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    bundle = tiny_bundle(model)
    for graph in graphs_of(bundle.manifest.architecture):
        for value in onnx.load(bundle.graph(graph), load_external_data=False).graph.input:
            axes = [axis.dim_param for axis in value.type.tensor_type.shape.dim]
            assert axes == [*AXES[value.name], *[""] * (len(axes) - len(AXES[value.name]))]


def attributes(module: object, owner: str) -> set[str]:
    """What a module asks of `owner`, such as `self._engine`."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in found if ast.unparse(node.value) == owner}


CALLS = {
    "ICudaEngine": (attributes(program, "engine") | attributes(program, "self._engine"), simulated.SimulatedEngine),
    "IExecutionContext": (
        (attributes(program, "context") | attributes(program, "self._context")) - {"close"},
        simulated.SimulatedContext,
    ),
    "IRuntimeConfig": (attributes(program, "config") | attributes(runtime_cache, "config"), simulated.SimulatedConfig),
    "IRuntimeCache": (attributes(runtime_cache, "self.cache"), simulated.SimulatedKernels),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_real_tensorrt_has_every_call(name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    calls, simulation = CALLS[name]
    assert len(calls) >= 2
    assert {call for call in calls if not hasattr(getattr(trt, name), call)} == set()
    given = {"create_runtime_config", "num_io_tensors", "num_optimization_profiles"}  # in its constructor
    assert {call for call in calls - given if not hasattr(simulation, call)} == set()


def test_the_real_tensorrt_has_every_name() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert trt.ExecutionContextAllocationStrategy.USER_MANAGED.name == "USER_MANAGED"
    assert {trt.DynamicShapesKernelSpecializationStrategy.EAGER, trt.DynamicShapesKernelSpecializationStrategy.LAZY}
    assert {trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT, trt.TensorLocation.DEVICE}
    assert set(program._TYPES) <= set(trt.DataType.__members__)
