"""`fmmt verify`."""

from __future__ import annotations

import shlex
import typing
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import BundlePath, JsonOutput, Quiet, Threads
from fmmt_deploy.cli.output import Output, Table
from fmmt_deploy.foreign_text import one_line

if typing.TYPE_CHECKING:
    from fmmt_deploy.errors import FmmtError
    from fmmt_deploy.parity.replay import Replayed
    from fmmt_deploy.receipts.check import Checked

__all__ = ["verify"]

_GRAPHS = ("graphs/", "manifest.json", "self_test")
"""Files without which nothing can be replayed."""


def verify(
    bundle: BundlePath,
    replayed: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Run the self-test again, with ONNX Runtime on the CPU.")
    ] = True,
    threads: Threads = 0,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Checks every hash and seal of a bundle, names all that was altered, and runs its self-test again.

    Needs neither data nor PyTorch. Ends with 8 if something was altered, and with 4 if a graph answers otherwise.

    Example: fmmt verify -b my-bundle
    """
    from fmmt_deploy.receipts.check import check_bundle

    shown = Output("verify", as_json, quiet)
    shown.status("reading every file")
    checked = check_bundle(bundle)
    whole = not any(finding.path.startswith(_GRAPHS) for finding in checked.problems)
    answers = _answers(shown, bundle, threads) if replayed and whole else []
    shown.result(_document(bundle, checked, answers), *_parts(bundle, checked, answers, replayed, whole))
    if (problem := _problem(bundle, checked, answers)) is not None:
        raise problem


def _answers(shown: Output, bundle: Path, threads: int) -> list[Replayed]:
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.engines.load import default_threads
    from fmmt_deploy.parity.replay import replay

    opened = Bundle.open(bundle, verify=False)  # every byte was just read
    if opened.manifest.self_test is None:
        shown.status("the bundle has no self-test to run")
        return []
    found = []
    for answer in replay(opened, threads or default_threads()):
        shown.status(f"{answer.graph} {answer.precision}: {answer.state}")
        found.append(answer)
    return found


def _document(bundle: Path, checked: Checked, answers: Sequence[Replayed]) -> dict[str, object]:
    return {
        "bundle": bundle,
        "passed": not checked.problems and all(answer.state != "failed" for answer in answers),
        "files": checked.files,
        "problems": checked.problems,
        "notes": checked.notes,
        "self_test": [
            {
                "graph": answer.graph,
                "precision": answer.precision,
                "state": answer.state,
                "why": answer.why,
                "stages": None if answer.report is None else answer.report.to_json()["stages"],
            }
            for answer in answers
        ],
    }


def _parts(
    bundle: Path, checked: Checked, answers: Sequence[Replayed], replayed: bool, whole: bool
) -> list[Table | str]:
    parts: list[Table | str] = []
    if answers:
        heads = ("graph", "precision", "self-test", "max abs", "allowed", "why")
        parts.append(Table("", heads, [_row(answer) for answer in answers]))
        parts += _elsewhere(bundle, answers)
    for title, findings in (("not wrong, but:", checked.notes), ("WRONG:", checked.problems)):
        if findings:
            parts.append("\n".join([title, *(f"  {one_line(f'{found.path} {found.what}')}" for found in findings)]))
    said = f"{checked.files} files of {bundle} read: "
    count = len(checked.problems)
    said += f"{count} problem{'s' * (count != 1)}" if count else "all are as they were written"
    if replayed and not whole:
        said += "; the self-test was not run, since what it runs is not what was written"
    return [*parts, said]


def _elsewhere(bundle: Path, answers: Sequence[Replayed]) -> list[str]:
    """How to run what ONNX Runtime does not compute."""
    graphs: dict[str, list[str]] = {}
    for answer in answers:
        if answer.report is None:
            graphs.setdefault(answer.precision, []).append(answer.graph)
    every = {answer.graph for answer in answers}
    asked = [
        precision if set(names) == every else ",".join(f"{graph}={precision}" for graph in names)
        for precision, names in graphs.items()
    ]
    command = f"fmmt parity -b {shlex.quote(str(bundle))} --engine emulated --precision"
    lines = [f"  {command} {text} --reference recorded" for text in asked]
    return ["\n".join(["not computed here; with PyTorch installed:", *lines])] if lines else []


def _row(answer: Replayed) -> tuple[object, ...]:
    if answer.report is None:
        return (answer.graph, answer.precision, answer.state, "–", "–", answer.why)
    tensors = [tensor for stage in answer.report.stages for tensor in stage.tensors if tensor.tolerance.atol]
    largest = max((tensor.max_abs for tensor in tensors), default=0.0)
    allowed = ", ".join(str(tensor.tolerance) for tensor in tensors)
    return (answer.graph, answer.precision, answer.state, f"{largest:.1e}" if isfinite(largest) else "–", allowed, "")


def _problem(bundle: Path, checked: Checked, answers: Sequence[Replayed]) -> FmmtError | None:
    from fmmt_deploy.errors import ArtefactError, EnvironmentProblem, ParityError

    if checked.problems:
        first, count = checked.problems[0], len(checked.problems)
        return ArtefactError(
            one_line(f"{first.path} {first.what}{'' if first.what.endswith(('.', '…')) else '.'}"),
            why=f"It is one of {count} problems in {bundle}." if count > 1 else "",
            fix="Copy the bundle again from where it is whole, or make it again.",
            path=bundle / first.path,
        )
    for answer in answers:
        if answer.report is not None and not answer.report.passed:
            try:
                answer.report.raise_unless_passed()
            except ParityError as error:
                return error
        if answer.precision == "fp32" and answer.report is None:
            return EnvironmentProblem(
                f"ONNX Runtime here does not compute {answer.graph} in float32.",
                why=answer.why,
                fix="Install a newer one: pip install -U onnxruntime.",
            )
    return None
