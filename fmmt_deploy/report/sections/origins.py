"""Where all of it comes from: the chain of receipts, settings, machine and versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.receipts.chain import Chain
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.report.blocks import Block, Heading, Listing, Paragraph, Section, Table
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Facts
from fmmt_deploy.report.figures import NONE, bytes_text, counted, short

__all__ = ["environment_section", "hashes_table", "machines", "receipts_section", "tools_table"]

_STATES = {"ok": "✓", "failed": "✗", "stale": "◌", "missing": "◌", "unknown": "◌"}
_VERDICTS = dict.fromkeys(("passed", "EQUIVALENT", "VALID"), "✓") | dict.fromkeys(("INCONCLUSIVE",), "◌")


def receipts_section(facts: Facts) -> Section:
    """The chain, every receipt, and the files of the bundle."""
    words = (
        "Each command that made or judged something left a sealed receipt in the bundle, and each names the one "
        "before. This page says what they say; `fmmt verify` checks every byte and replays the bundle's self-test."
    )
    blocks: list[Block] = [Paragraph(words, "lead")]
    if facts.damaged:
        blocks.append(Listing(tuple(f"✗ `{kept.path}` {kept.problem}" for kept in facts.damaged)))
    if facts.chain is not None:
        blocks.append(_chain(facts.chain))
    rows = [_receipt_row(facts, number_, receipt) for number_, receipt in enumerate(facts.receipts)]
    if rows:
        heads = ("receipt", "!command", "!written", ">took", "verdict", "#SHA-256")
        blocks.append(Table(heads, rows, f"{counted(len(rows), 'receipt')}, the first one first"))
    else:
        blocks.append(
            Paragraph("There is none: this bundle was made without receipts, so nothing vouches for it.", "note")
        )
    blocks += _inputs(facts)
    blocks.append(_files(facts))
    return Section("receipts", "Receipts", tuple(blocks), new_sheet=True)


def environment_section(facts: Facts) -> Section:
    """Model, machines, versions and settings."""
    blocks: list[Block] = [Heading("Model"), _model(facts)]
    if machines(facts):
        blocks += [Heading("Machines"), Listing(machines(facts))]
    tools = tools_table(facts)
    if tools.rows:
        blocks += [Heading("Versions"), tools]
    settings = [_settings(receipt) for receipt in facts.receipts if receipt.settings]
    if settings:
        blocks += [Heading("Settings"), *settings]
    return Section("environment", "Settings and environment", tuple(blocks))


def _chain(chain: Chain) -> Table:
    rows = [
        (step.kind, step.name, f"{_STATES[step.state]} {step.state}", step.why, step.receipt or NONE, step.next or NONE)
        for step in chain.steps
    ]
    heads = ("step", "~of", "!state", "~why", "receipt", "~what to run")
    return Table(heads, rows, "The chain from the checkpoint to the benchmark")


def machines(facts: Facts) -> tuple[str, ...]:
    """Every machine that a command ran on."""
    return tuple(dict.fromkeys(_machine(receipt) for receipt in facts.receipts))


def hashes_table(facts: Facts) -> Table:
    """What went in and what the bundle holds, by SHA-256."""
    inputs: dict[tuple[str, str], str] = {}
    for receipt in facts.receipts:
        for name, hashed in receipt.inputs.items():
            about = f"{hashed.about}; " if hashed.about else ""
            first = f"input: {name} ({about}first for fmmt {receipt.command}, receipt {receipt.number})"
            inputs.setdefault((name, hashed.sha256), first)
    rows = [(first, digest) for (_, digest), first in sorted(inputs.items(), key=lambda one: one[0][0])]
    rows.append((MANIFEST_NAME, hash_file(facts.path / MANIFEST_NAME)))
    rows += [(name, entry.sha256) for name, entry in sorted(facts.manifest.files.items())]
    rows += [(kept.path, kept.sha256) for kept in facts.kept]
    return Table(("file", "#SHA-256"), rows)


def _receipt_row(facts: Facts, place: int, receipt: Receipt) -> tuple[str, ...]:
    digests = {kept.path: kept.sha256 for kept in facts.kept}
    path = next((kept.path for kept in facts.kept if kept.receipt is receipt), "")
    verdict = receipt.verdict or (f"ended with {receipt.exit_code}" if receipt.exit_code else "")
    mark = _VERDICTS.get(receipt.verdict, "✗" if receipt.exit_code else "")
    return (
        f"{receipt.number or place + 1:04}",
        f"fmmt {receipt.command}",
        _when(receipt.created),
        f"{short(receipt.seconds)} s",
        f"{mark} {verdict}".strip() or NONE,
        digests.get(path, ""),
    )


def _inputs(facts: Facts) -> Iterator[Block]:
    seen: dict[tuple[str, str], tuple[str, ...]] = {}
    for receipt in facts.receipts:
        for name, hashed in receipt.inputs.items():
            seen.setdefault(
                (name, hashed.sha256), (name, hashed.about or NONE, f"fmmt {receipt.command}", hashed.sha256)
            )
    if seen:
        heads = ("input", "~what", "!first used by", "#SHA-256")
        yield Table(
            heads, list(seen.values()), "What went in from outside: checkpoints by file, data by all that a model reads"
        )


def _files(facts: Facts) -> Table:
    rows = [(name, bytes_text(entry.size_bytes), entry.sha256) for name, entry in sorted(facts.manifest.files.items())]
    return Table(
        ("file", ">size", "#SHA-256"),
        rows,
        folded=f"{counted(len(rows), 'file')} of the bundle, as its manifest lists them",
    )


def _model(facts: Facts) -> Table:
    manifest = facts.manifest
    checkpoints = ", ".join(f"{name}: {digest}" for name, digest in manifest.source.checkpoints.items())
    rows = [
        ("modality", manifest.architecture.modality),
        ("graphs", "; ".join(f"{name} in {', '.join(files)}" for name, files in manifest.graphs.items())),
        ("temperature of the gate", f"{manifest.tau:g}"),
        ("threshold of the gate", f"{manifest.threshold:g}"),
        ("bundle made", _when(manifest.created)),
        ("checkpoints", checkpoints or NONE),
    ]
    return Table(("", "~"), rows)


def _machine(receipt: Receipt) -> str:
    device = Document(dict(receipt.device))
    gpus = [
        f"{gpu['name'].text} (compute {gpu['compute_capability'].text}, driver {gpu['driver'].text})"
        for gpu in device["gpus"]
    ]
    parts = [
        device["cpu"].text,
        "" if (cores := device["cores"].count) is None else counted(cores, "core"),
        f"{bytes_text(device['memory_bytes'].number)} memory",
    ]
    return ", ".join([*(part for part in parts if part), device["system"].text, *(gpus or ["no GPU"])])


def tools_table(facts: Facts) -> Table:
    """Each tool's versions, with the receipts they were used in where there are several."""
    found: dict[str, dict[str, list[int]]] = {}
    for receipt in facts.receipts:
        for name, version in receipt.tools.items():
            found.setdefault(name, {}).setdefault(version, []).append(receipt.number)
    rows = [
        (name, "; ".join(_version(v, used, len(versions)) for v, used in versions.items()))
        for name, versions in found.items()
    ]
    return Table(("tool", "version"), rows)


def _version(version: str, used: list[int], versions: int) -> str:
    return version if versions == 1 else f"{version} (receipt{'s' * (len(used) > 1)} {', '.join(map(str, used))})"


def _settings(receipt: Receipt) -> Table:
    rows = [(name, _value(setting.value), setting.source) for name, setting in receipt.settings.items()]
    rows += [(f"seeds of {name}", ", ".join(map(str, seeds)), "") for name, seeds in receipt.seeds.items()]
    return Table(("setting", "~value", "from"), rows, folded=f"{receipt.number:04}: fmmt {receipt.command}")


def _value(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or NONE
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _when(iso: str) -> str:
    """`2026-11-23 09:00 UTC`, or the text as it is."""
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso
