"""Which precision each graph of a model is asked for: `--precision fp16`, `--precision swin=fp16,plm=fp16`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias, get_args

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import PRECISIONS, Precision, graphs_of
from fmmt_deploy.errors import UsageError
from fmmt_deploy.names import GRAPHS, GraphName

__all__ = ["Precisions", "adding_command", "float32", "precisions_from_option", "text_from_precisions"]

Precisions: TypeAlias = Mapping[GraphName, Precision]
"""For each graph of a model, its precision."""


def float32(graphs: Iterable[GraphName]) -> Precisions:
    """Float32 for each."""
    return dict.fromkeys(graphs, "fp32")


def precisions_from_option(text: str, architecture: Architecture) -> dict[GraphName, Precision]:
    """Reads the option; graphs it does not name are float32.

    Args:
        text: One precision for all graphs, or `graph=precision` pairs between commas.
        architecture: Whose graphs they are.

    Raises:
        UsageError: A graph or precision is unknown, of another kind of model, or named twice.
    """
    graphs = graphs_of(architecture)
    if "=" not in text:
        return dict.fromkeys(graphs, _precision(text.strip(), text))
    chosen: dict[GraphName, Precision] = {}
    for pair in text.split(","):
        name, _, value = (part.strip() for part in pair.partition("="))
        graph = next((graph for graph in graphs if graph == name), None)
        if graph is None:
            what = f"this model has no graph {name!r}" if name in GRAPHS else f"there is no graph {name!r}"
            raise UsageError(f"--precision {text}: {what}.", fix=f"Its graphs are {', '.join(graphs)}.")
        if graph in chosen:
            raise UsageError(f"--precision {text}: {graph} is named twice.", fix="Name each graph once.")
        chosen[graph] = _precision(value, text)
    return {graph: chosen.get(graph, "fp32") for graph in graphs}


def text_from_precisions(precisions: Precisions) -> str:
    """The shortest text that `precisions_from_option` reads as these."""
    if len(set(precisions.values())) == 1:
        return next(iter(precisions.values()))
    return ",".join(f"{graph}={precision}" for graph, precision in precisions.items())


def adding_command(bundle: Path, graphs: Iterable[GraphName], precision: Precision) -> str:
    """What adds graphs in a precision to a bundle, as the shell reads it; where data are needed, they are `DIR`.

    Args:
        bundle: The bundle's path.
        graphs: Some of its graphs.
        precision: No float32, which every bundle has.
    """
    wanted = f"-b {shlex.quote(str(bundle))} --precision {','.join(f'{graph}={precision}' for graph in graphs)}"
    return f"fmmt cast {wanted}" if precision in ("fp16", "bf16") else f"fmmt calibrate {wanted} --data DIR"


def _precision(name: str, text: str) -> Precision:
    precision = next((p for p in PRECISIONS if p == name), None)
    if precision is None:
        raise UsageError(
            f"--precision {text}: there is no precision {name!r}.", fix=f"Known are {', '.join(get_args(Precision))}."
        )
    return precision
