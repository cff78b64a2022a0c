"""Engine files with made-up plans."""

from pathlib import Path
from typing import Any

from fmmt_deploy.engines.tensorrt.cache import EngineAbout, EngineKey, write_engine
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Range
from fmmt_deploy.engines.tensorrt.target import Target

PLAN = bytes(range(256)) * 40
L4 = Target("NVIDIA L4", ("8.9",))
KEY = EngineKey(
    graph="swin",
    precision="fp16",
    graph_sha256="0" * 64,
    profiles=({"faces": Range(1, 8, 64)},),
    options=BuildOptions(),
    flavour="trt-rtx",
    version="1.7.1.116",
    target=L4,
)


def about(key: EngineKey = KEY, **settings: Any) -> EngineAbout:
    return EngineAbout(key=key, build_seconds=1.5, flops_share={"fp16": 0.9, "fp32": 0.1}, **settings)


def written(folder: Path, key: EngineKey = KEY, plan: bytes = PLAN, **settings: Any) -> Path:
    return write_engine(folder, about(key, **settings), memoryview(plan)).path
