"""Small, valid bundles for tests."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, load, numpy_helper, save_model

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmSizes, SwinSizes, UnimodalSizes
from fmmt_deploy.bundle.manifest import Manifest, SourceEntry
from fmmt_deploy.bundle.selftest import Stage, read_self_test, write_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import write_bundle

UNIMODAL = Architecture("V", unimodal=UnimodalSizes(48, 12, 6, 16, 2))
FULL = Architecture(
    "T+A+V",
    swin=SwinSizes(),
    plm=PlmSizes("roberta", 300, 32, 2, 4, 64, 514, 1e-5),
    fusion=FusionSizes(48, 12, 38, 14, 24, 5, 6, 16, 2, 2),
)


def save_graph(path: Path, value: float, external: str | None = None) -> None:
    """A graph that adds `value` to x (1024 numbers), with the weights beside it if `external` names a file."""
    weights = numpy_helper.from_array(np.full(1024, value, np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024]) for name in "xy")
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights]),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    save_model(model, path, save_as_external_data=external is not None, location=external)


def make_bundle(
    path: Path, value: float = 1.0, architecture: Architecture = UNIMODAL, force: bool = False, external: bool = False
) -> Bundle:
    names = ["unimodal"] if architecture.modality == "V" else ["swin", "plm", "fusion"]
    with write_bundle(path, force=force) as writer:
        for name in names:
            save_graph(writer.place(f"{name}.onnx"), value, f"{name}.onnx.data" if external else None)
        writer.add_bytes("tokenizer.json", b"{}")
        return writer.commit(
            Manifest(
                architecture=architecture,
                graphs={name: {"fp32": f"{name}.onnx"} for name in names},
                tokenizer="tokenizer.json",
                source=SourceEntry({"multimodal.pt": "ab" * 32}),
                tools={"torch": "2.9"},
            )
        )


def value_of(path: Path) -> float:
    """Which of the samples a bundle is: its graph adds this number."""
    return float(
        np.unique(numpy_helper.to_array(load(Bundle.open(path).graph("unimodal")).graph.initializer[0])).item()
    )


def leftovers(path: Path) -> list[str]:
    """What lies beside a bundle."""
    return sorted(sibling.name for sibling in path.parent.iterdir() if sibling != path)


def with_another_record(bundle: Path, out: Path) -> Path:
    """A copy of a V bundle, without receipts, whose recorded answers are 1 % larger; all its hashes are right."""
    opened = Bundle.open(bundle)
    (stage,) = read_self_test(bundle / "self_test.npz").values()
    logits = {name: np.asarray(array * np.float32(1.01)) for name, array in stage.outputs.items()}
    with write_bundle(out) as writer:
        for name in opened.manifest.files:
            if name != "self_test.npz":
                writer.copy_file(name, bundle / name)
        write_self_test(writer.place("self_test.npz"), {"unimodal": Stage(stage.inputs, logits)})
        writer.commit(opened.manifest)
    return out
