"""`fmmt status`."""

from __future__ import annotations

import shlex
import typing
from collections.abc import Sequence
from pathlib import Path

from fmmt_deploy.cli.options import BundlePath, JsonOutput, Quiet
from fmmt_deploy.cli.output import Output, Table
from fmmt_deploy.foreign_text import one_line

if typing.TYPE_CHECKING:
    from fmmt_deploy.errors import ArtefactError
    from fmmt_deploy.receipts.chain import Chain
    from fmmt_deploy.receipts.step import Step

__all__ = ["status"]


def status(bundle: BundlePath, as_json: JsonOutput = False, quiet: Quiet = False) -> None:
    """Shows what was made and judged of a bundle, what of it no longer holds, and what to run next.

    Reads receipts only; `fmmt verify` checks the files themselves. Ends with 8 if something is stale or failed.

    Example: fmmt status -b my-bundle
    """
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.receipts.chain import chain_of

    shown = Output("status", as_json, quiet)
    chain = chain_of(Bundle.peek(bundle))
    document = {"bundle": bundle, "sound": not chain.broken, "steps": chain.to_json()}
    shown.result(document, *_parts(chain))
    if chain.broken:
        raise _problem(chain.broken, bundle)


def _parts(chain: Chain) -> list[Table | str]:
    rows = [(step.kind, step.name, _state(step), step.why, _day(step)) for step in chain.steps]
    parts: list[Table | str] = [Table("", ("step", "what", "state", "why", "when"), rows)]
    commands = dict.fromkeys(step.next for step in chain.steps if step.next)
    if commands:
        parts.append("\n".join(["next:", *(f"  {one_line(command)}" for command in commands)]))
    return parts


def _state(step: Step) -> str:
    """What is wrong stands out."""
    return step.state.upper() if step.state in ("stale", "failed") else step.state


def _day(step: Step) -> str:
    return "–" if step.created is None else step.created[:16].replace("T", " ")


def _problem(broken: Sequence[Step], bundle: Path) -> ArtefactError:
    from fmmt_deploy.errors import ArtefactError

    first = broken[0]
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    return ArtefactError(
        f"{first.kind} of {first.name} is {first.state}{more}: {first.why}.",
        fix=f"Run: {first.next}" if first.next else f"Run: fmmt verify -b {shlex.quote(str(bundle))}",
        path=bundle,
    )
