"""The options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

__all__ = [
    "BatchSize",
    "BundlePath",
    "DataPath",
    "DryRun",
    "Engine",
    "EngineCache",
    "EngineKind",
    "FacesDir",
    "Force",
    "JsonOutput",
    "Limit",
    "NoReceipt",
    "Noise",
    "PrecisionText",
    "Quiet",
    "Seed",
    "Split",
    "SplitName",
    "Threads",
]

EngineKind: TypeAlias = Literal[
    "ort",
    "torch",
    "emulated",
    "ort-cuda",
    "ort-trt",
    "ort-trt-rtx",
    "torch-cuda",
    "torch-compiled",
    "trt",
    "trt-rtx",
]
"""As `engines.protocol.EngineKind`, which is not imported because it needs NumPy and `--help` does not."""

SplitName: TypeAlias = Literal["train", "val", "test"]

BundlePath: TypeAlias = Annotated[
    Path, typer.Option("--bundle", "-b", metavar="DIR", help="The bundle, as `fmmt export` wrote it.")
]
DataPath: TypeAlias = Annotated[
    Path,
    typer.Option("--data", metavar="PATH", help="A folder with the published files, or a JSONL of dialogues."),
]
Split: TypeAlias = Annotated[SplitName, typer.Option("--split", help="Which part of the data set.")]
Engine: TypeAlias = Annotated[EngineKind, typer.Option("--engine", help="What computes.")]
PrecisionText: TypeAlias = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="TYPE|GRAPH=TYPE,…",
        help="Which of the bundle's graphs: fp32, fp16, bf16, int8-fp32, int8 or fp8 for all, or for each by name; see "
        "`fmmt cast` and `fmmt calibrate`.",
    ),
]
EngineCache: TypeAlias = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Where TensorRT's engines are kept; default in the bundle."),
]
JsonOutput: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no status lines.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Check, say what would be written, write nothing.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
BatchSize: TypeAlias = Annotated[int, typer.Option("--batch-size", min=1, help="Utterances at a time.")]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", min=0, max=1024, help="Threads to compute with; 0: as many as there are cores.")
]
Noise: TypeAlias = Annotated[
    str,
    typer.Option(
        "--noise",
        metavar="none|gumbel|FILE",
        help="Noise on the face logits: none, drawn from --seed, or recorded draws from an .npz.",
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="What the noise is drawn from.")]
Limit: TypeAlias = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first so many dialogues; default all.")
]
NoReceipt: TypeAlias = Annotated[
    bool, typer.Option("--no-receipt", help="Leave no receipt in the bundle, as where it is read-only.")
]
FacesDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--faces-dir", metavar="DIR", help="Where face images are, if their paths are of another machine."),
]
