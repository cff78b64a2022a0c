"""Which nodes keep float32 by their place in the model, read off the files by ONNX's own type inference."""

import pytest
from onnx import TensorProto

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.types import GraphName
from tests.calibration.typed import PRECISIONS, TypedFiles, inferred_kinds

FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("model", "graph", "names"),
    [
        *((model, "plm", ("plm.embeddings/Add_1", "plm.embeddings/Add_2")) for model in ("roberta", "bert")),
        ("roberta", "fusion", ("Add_2", "Add_3", "Add_4", "Add_5", "attention/Tanh", "attention/MatMul")),
        ("roberta", "swin", ("Mul", "Add", "Relu")),  # BatchNorm, and what is between the last Linears
    ],
)
def test_embedding_sums_and_what_makes_logits_stay_in_float32(
    typed_file: TypedFiles, model: str, graph: GraphName, names: tuple[str, ...], precision: Precision
) -> None:
    nodes, kinds = inferred_kinds(typed_file(model, graph, precision))
    by_name = {node.name: node for node in nodes.node}
    for name in names:
        assert {kinds[tensor] for tensor in (*by_name[name].input, *by_name[name].output)} == {FLOAT}, name
