"""`fmmt`: finds the command, runs it, and turns whatever happens into a message and an exit code (see `errors`).

The command modules are light to import, so that `fmmt --help` answers at once; what is heavy is imported when a command
runs.
`--debug` (or FMMT_DEBUG=1) may stand anywhere on the command line and adds tracebacks.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, NoReturn, ParamSpec, TypeAlias

import typer

from fmmt_deploy.cli import output
from fmmt_deploy.errors import INTERRUPTED, EnvironmentProblem, FmmtError

__all__ = ["build_app", "main"]

P = ParamSpec("P")
Command: TypeAlias = Callable[..., None]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `fmmt` and ends the process.

    Args:
        arguments: The command line without the program's name; default that of this process.

    Raises:
        SystemExit: Always, with the exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options or os.environ.get("FMMT_DEBUG", "0") not in ("", "0")
    given = [argument for argument in options if argument != "--debug"] + given[len(options) :]
    output.start()
    try:
        build_app(debug)(given, prog_name="fmmt")
    except (Exception, KeyboardInterrupt) as error:  # a command module that can't be imported, or Ctrl-C before one ran
        sys.exit(_report(error, as_json="--json" in options, debug=debug))
    sys.exit(0)


def build_app(debug: bool = False) -> typer.Typer:
    """The whole command line, with every command.

    Args:
        debug: Whether errors come with their traceback.
    """
    app = typer.Typer(
        name="fmmt",
        help="Turns a trained FacialMMT model into graphs for production, and proves that they still answer alike.",
        epilog="Exit codes: 0 ok, 1 our bug, 2 usage, 3 environment, 4 parity, 5 F1, 6 slower, 7 unstable, 8 artefact, "
        "9 precision, 130 interrupted.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for name, command in _commands().items():
        app.command(name)(_guarded(command, debug))
    return app


def _commands() -> Mapping[str, Command]:
    """One line a command, in the order of the help."""
    from fmmt_deploy.cli.bench import bench
    from fmmt_deploy.cli.build import build
    from fmmt_deploy.cli.calibrate import calibrate
    from fmmt_deploy.cli.cast import cast
    from fmmt_deploy.cli.diff import diff
    from fmmt_deploy.cli.doctor import doctor
    from fmmt_deploy.cli.evaluate import evaluate
    from fmmt_deploy.cli.export import export
    from fmmt_deploy.cli.inspect import inspect
    from fmmt_deploy.cli.make_demo_data import make_demo_data
    from fmmt_deploy.cli.parity import parity
    from fmmt_deploy.cli.profile_data import profile_data
    from fmmt_deploy.cli.report import report
    from fmmt_deploy.cli.run import run
    from fmmt_deploy.cli.status import status
    from fmmt_deploy.cli.train import train
    from fmmt_deploy.cli.triage import triage
    from fmmt_deploy.cli.verdict import verdict
    from fmmt_deploy.cli.verify import verify

    return {
        "make-demo-data": make_demo_data,
        "train": train,
        "export": export,
        "cast": cast,
        "calibrate": calibrate,
        "build": build,
        "inspect": inspect,
        "profile-data": profile_data,
        "run": run,
        "parity": parity,
        "triage": triage,
        "eval": evaluate,
        "diff": diff,
        "verdict": verdict,
        "bench": bench,
        "status": status,
        "verify": verify,
        "report": report,
        "doctor": doctor,
    }


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.Output("version").result({}, f"fmmt-deploy {version('fmmt-deploy')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    del version, debug  # one is dealt with by its callback, the other by `main`; they are here for the help


def _guarded(command: Callable[P, None], debug: bool) -> Callable[P, None]:
    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_report(error, bool(kwargs.get("as_json")), debug)) from error

    return guarded


def _report(error: BaseException, as_json: bool, debug: bool) -> int:
    """Shows what happened; returns the exit code."""
    known = _known(error)
    details = "".join(traceback.format_exception(error)) if debug else ""
    output.show_error(known, as_json, details)
    return known.exit_code


def _known(error: BaseException) -> FmmtError:
    if isinstance(error, FmmtError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return _InterruptedError("Interrupted.")
    if isinstance(error, MemoryError):
        return EnvironmentProblem(
            "There is not enough memory.", why=str(error), fix="Use a smaller --batch-size, or a machine with more."
        )
    if isinstance(error, ModuleNotFoundError) and (problem := _missing_package(error)) is not None:
        return problem
    if isinstance(error, OSError) and (problem := _operating_system(error)) is not None:
        return problem
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" in {frame[0].filename}:{frame[0].lineno}" if frame else ""
    return FmmtError(
        f"This is a bug of ours: {type(error).__name__}: {error}",
        why=f"It was not foreseen{where}.",
        fix="Please report it with the output of this command with --debug and of `fmmt doctor --json`.",
    )


def _operating_system(error: OSError) -> EnvironmentProblem | None:
    if error.errno in _DISK_FULL:
        return EnvironmentProblem(
            "The disk is full.", why=str(error), fix="Free some space, or write elsewhere.", path=error.filename
        )
    if error.errno in _NO_ACCESS:
        return EnvironmentProblem(
            f"{error.filename or 'A file'} can't be used.",
            why=str(error),
            fix="Change its permissions.",
        )
    return None


def _missing_package(error: ModuleNotFoundError) -> EnvironmentProblem | None:
    from fmmt_deploy.doctor import how_to_install

    module = (error.name or "").partition(".")[0]
    fix = how_to_install(module)
    if not fix:
        return None
    return EnvironmentProblem(f"The package {module} is missing.", why="This command needs it.", fix=fix)


class _InterruptedError(FmmtError):
    exit_code = INTERRUPTED
