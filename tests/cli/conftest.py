"""A bundle with everything in it that commands leave: typed graphs, engines, receipts."""

from pathlib import Path

import pytest

from fmmt_deploy.bundle.sealed import write_sealed
from fmmt_deploy.engines.tensorrt.trust import write_verdict
from tests.calibration.talk import write_talk
from tests.cli.calibrating import calibrate
from tests.cli.running import exit_code
from tests.golden import GOLDEN

CHECKPOINT = GOLDEN / "bert/pretrained_model/FacialMMT-unimodal/unimodal_model_V.pt"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as a user would, by eight commands; never to be changed."""
    folder = tmp_path_factory.mktemp("recorded")
    bundle, talk = folder / "bundle", write_talk(folder / "talk")
    engine = ("--engine", "trt-rtx", "--precision", "fp16", "-q")
    assert exit_code("export", "--ckpt", str(CHECKPOINT), "-o", str(bundle), "-q") == 0
    assert exit_code("parity", "-b", str(bundle), "-q") == 0
    assert exit_code("parity", "-b", str(bundle), "--self", "-q") == 0
    assert exit_code("cast", "-b", str(bundle), "--precision", "fp16", "-q") == 0
    asked = ("--precision", "int8-fp32", "--split", "train", "--dialogues", "3", "--allow-small", "-q")
    assert calibrate(bundle, talk.folder, *asked) == 0
    assert exit_code("build", "-b", str(bundle), *engine) == 0
    (built,) = (bundle / "engines").iterdir()
    write_verdict(built, checks=("batch",), failed=(), gpu="NVIDIA L4", version="1.7.1.116")
    write_sealed(built.with_name(f"{built.name}.kernels"), {}, memoryview(b"kernels" * 50))
    write_sealed(built.with_name("timing-trt-11-L4.cache"), {"flavour": "trt"}, memoryview(b"times" * 50))
    on_data = ("--data", str(talk.folder), "--split", "test", "--limit", "2", "-q")
    assert exit_code("parity", "-b", str(bundle), "--engine", "emulated", "--precision", "fp16", *on_data) == 0
    assert exit_code("parity", "-b", str(bundle), "--precision", "int8-fp32", "-q") == 0
    return bundle
