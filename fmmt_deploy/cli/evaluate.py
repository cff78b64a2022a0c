"""`fmmt eval`."""

from __future__ import annotations

import typing
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    DataPath,
    Engine,
    EngineCache,
    EngineKind,
    FacesDir,
    JsonOutput,
    Limit,
    Noise,
    PrecisionText,
    Quiet,
    Seed,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table

if typing.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fmmt_deploy.evaluation.comparison import Comparison
    from fmmt_deploy.evaluation.evaluation import Evaluation, Spread

__all__ = ["evaluate"]


def evaluate(
    bundle: BundlePath,
    data: DataPath,
    split: Split = "test",
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    cache: EngineCache = None,
    reference: Annotated[
        EngineKind | None,
        typer.Option("--reference", help="Compare with this engine in float32; ends with 5 where they differ."),
    ] = None,
    noise: Noise = "none",
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="With --noise gumbel: so many runs, each with noise of its own.")
    ] = 1,
    faces_dir: FacesDir = None,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Scores an engine on labelled data: weighted F1, per class, confusion, and the difference to a reference.

    Example: fmmt eval -b my-bundle --data meld-data --split test --engine ort --reference torch
    """
    import numpy as np

    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.errors import UsageError
    from fmmt_deploy.evaluation.comparison import EQUIVALENCE_RULES, compare
    from fmmt_deploy.evaluation.evaluation import evaluate as score
    from fmmt_deploy.evaluation.evaluation import over_seeds
    from fmmt_deploy.parity.tolerances import coarsest
    from fmmt_deploy.selection.calibrated import overlap_warnings

    if seeds > 1 and noise != "gumbel":
        raise UsageError(f"--seeds {seeds} needs noise that depends on a seed.", fix="Add --noise gumbel.")
    shown = Output("eval", as_json, quiet)
    session = Session(shown, bundle, threads, batch_size, precision, cache)
    dataset = session.dataset(data, split, faces_dir, limit)
    warnings = overlap_warnings(session.bundle, dataset, session.precisions)
    for warning in warnings:
        shown.status(f"warning: {warning}")
    known = {u.id: u.label for dialogue in dataset.dialogues for u in dialogue.utterances}
    labels = [known[utterance] for utterance in dataset.order]
    evaluations, comparisons = [], []
    for number in range(seed, seed + seeds):
        draws = session.noise(noise, number, dataset)
        answers = session.answers(session.engines(engine), dataset, draws)
        logits = np.stack([answer.logits for answer in answers])
        evaluations.append(score(dataset.order, labels, logits))
        if reference is not None:
            answers = session.answers(session.reference(reference), dataset, draws)
            right, rules = (
                np.stack([answer.logits for answer in answers]),
                EQUIVALENCE_RULES[coarsest(session.precisions.values())],
            )
            comparisons.append(compare(dataset.order, labels, right, logits, rules))
    spread = over_seeds(evaluations) if seeds > 1 else None
    document = {
        "engine": engine,
        "precisions": session.precisions,
        "data": dataset.source,
        "warnings": warnings,
        "noise": noise,
        "seeds": list(range(seed, seed + seeds)),
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "spread": None if spread is None else {name: value.to_json() for name, value in spread.items()},
        "reference": reference,
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }
    parts = _spread_parts(spread) if spread is not None else _score_parts(evaluations[0], engine)
    notes = [f"warning: {warning}" for warning in warnings]
    shown.result(document, *parts, *_comparison_parts(comparisons, engine, reference or ""), *notes)
    for comparison in comparisons:
        comparison.raise_unless_equivalent()


def _score_parts(evaluation: Evaluation, engine: str) -> list[Table]:
    scores = [
        (c.emotion, f"{100 * c.precision:.2f}", f"{100 * c.recall:.2f}", f"{100 * c.f1:.2f}", c.support)
        for c in evaluation.classes
    ]
    overall = [
        ("weighted F1", f"{100 * evaluation.weighted_f1:.2f}"),
        ("macro F1", f"{100 * evaluation.macro_f1:.2f}"),
        ("accuracy", f"{100 * evaluation.accuracy:.2f}"),
    ]
    names = [c.emotion for c in evaluation.classes]
    confusion = [(name, *row) for name, row in zip(names, evaluation.confusion, strict=True)]
    return [
        Table(f"{engine}: {len(evaluation.utterances)} utterances", (), overall),
        Table("", ("emotion", "precision", "recall", "F1", "support"), scores),
        Table("confusion (rows: truth, columns: decision)", ("", *(name[:8] for name in names)), confusion),
    ]


def _spread_parts(spread: Mapping[str, Spread]) -> list[Table]:
    rows = [
        (name, *(f"{100 * x:.2f}" for x in (value.mean, value.deviation, value.lowest, value.highest)))
        for name, value in spread.items()
    ]
    seeds = next(iter(spread.values())).seeds
    return [Table(f"over {seeds} seeds of noise", ("score", "mean", "std dev", "lowest", "highest"), rows)]


def _comparison_parts(comparisons: Sequence[Comparison], engine: str, reference: str) -> list[Table | str]:
    if not comparisons:
        return []
    rows = [
        (
            f"{100 * c.reference_f1:.4f}",
            f"{100 * c.f1:.4f}",
            f"{100 * c.f1_difference:+.4f}",
            len(c.changed),
            len(c.ties),
            f"{c.mcnemar.p_value:.3f}",
            "equivalent" if c.equivalent else "NOT EQUIVALENT",
        )
        for c in comparisons
    ]
    columns = (f"F1 {reference}", f"F1 {engine}", "difference", "changed", "ties", "McNemar p", "verdict")
    changed = [
        (d.utterance, d.label, d.reference, d.decision, f"{d.margin:.2e}") for c in comparisons for d in c.changed
    ]
    tables: list[Table | str] = [Table(f"{engine} against {reference}", columns, rows)]
    if changed:
        tables.append(Table("changed decisions", ("utterance", "truth", reference, engine, "margin"), changed[:20]))
    return tables
