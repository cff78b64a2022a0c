"""`fmmt doctor`."""

from __future__ import annotations

import typing
from pathlib import Path

import typer

from fmmt_deploy.cli.options import JsonOutput
from fmmt_deploy.cli.output import Output, Table, readable_bytes
from fmmt_deploy.errors import EnvironmentProblem

if typing.TYPE_CHECKING:
    from fmmt_deploy.doctor import Package, Report

__all__ = ["doctor"]


def doctor(as_json: JsonOutput = False) -> None:
    """Says what this machine has and lacks, and how to get it.

    Exit code 0 if bundles can be run here with ONNX Runtime, else 3.

    Example: fmmt doctor --json
    """
    from dataclasses import asdict

    from fmmt_deploy.doctor import examine

    report = examine(Path.cwd())
    Output("doctor", as_json).result(asdict(report), *_parts(report))
    if not report.ready:
        raise typer.Exit(EnvironmentProblem.exit_code)


def _parts(report: Report) -> list[Table | str]:
    machine = [
        ("fmmt-deploy", report.version),
        ("Python", report.python),
        ("System", report.system),
        ("Cores", report.cores),
        (
            "Memory",
            f"{readable_bytes(report.memory_available_bytes)} free of {readable_bytes(report.memory_bytes)}",
        ),
        ("Disk", f"{readable_bytes(report.disk_free_bytes)} free here"),
        ("ONNX Runtime", ", ".join(report.providers) or "not usable"),
        *([("int8 on the CPU", report.int8)] if report.int8 else []),
        *(("GPU", f"{g.name}, {g.memory_mib} MiB, driver {g.driver}, SM {g.compute_capability}") for g in report.gpus),
        *((t.name, _tensorrt(t.bindings, t.libraries)) for t in report.tensorrt),
    ]
    if not report.gpus:
        machine.append(("GPU", "none found with nvidia-smi"))
    packages = [(p.name, p.installed or "missing", p.wanted, p.extra or "always", _state(p)) for p in report.packages]
    commands = [
        (c.command, "ready" if c.ready else "needs " + ", ".join(c.missing), c.fix or "–") for c in report.commands
    ]
    return [
        Table("", (), machine),
        Table("", ("package", "installed", "wanted", "extra", "state"), packages),
        Table("", ("command", "state", "how to get it"), commands),
        *(f"problem: {problem}" for problem in report.problems),
        "Ready to run bundles with ONNX Runtime." if report.ready else "Not ready to run bundles with ONNX Runtime.",
    ]


def _tensorrt(bindings: str | None, libraries: bool) -> str:
    if bindings is None and not libraries:
        return "not installed"
    return f"{bindings or 'no Python bindings'}, libraries {'found' if libraries else 'missing'}"


def _state(package: Package) -> str:
    if package.installed is None:
        return "not installed" if package.extra else "missing"
    return "ok" if package.fits else "another version"
