"""`fmmt calibrate --auto`: the search for the fastest precisions that hold, wired to data, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.atomic import create_sibling
from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.precisions import text_from_precisions
from fmmt_deploy.calibration.dataset import find_test_splits, without_test
from fmmt_deploy.calibration.recipes import Recipe, toml_from_recipe
from fmmt_deploy.cli.calibrating import Source
from fmmt_deploy.cli.output import Output, Table
from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.data.content import content_of
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.selection.evidence import recipe_from_found
from fmmt_deploy.selection.found import Found
from fmmt_deploy.selection.judge import judge_from_bundle
from fmmt_deploy.selection.making import emulated_maker
from fmmt_deploy.selection.marks import few_warnings
from fmmt_deploy.selection.progress_file import ProgressFile, inputs_digest
from fmmt_deploy.selection.rules import EquivalenceRule
from fmmt_deploy.selection.search import find_precisions
from fmmt_deploy.types import DataSet, GraphName

__all__ = ["ALLOWED", "Auto", "Device", "found_parts"]

Device: TypeAlias = Literal["gpu", "cpu"]

ALLOWED: Mapping[Device, tuple[Precision, ...]] = {"gpu": ("int8", "fp8", "fp16"), "cpu": ("int8-fp32",)}
"""What is looked for on each, besides float32; of two that are as fast the first: int8 makes less noise than FP8."""

MAX_F1_DROP_POINTS = 0.5
MAX_CHANGED_SHARE = 0.02
"""At least 98 % of the decisions must be the reference's."""


class Auto:
    """One search.

    Args:
        session: The bundle.
        shown: Where progress goes.
        device: What for.
        max_f1_drop: In points of weighted F1; None for half a point.
        recipe: Where the recipe goes; default `calibration/<bundle>-<device>.toml`.
        may_replace: Whether graphs of the bundle may be replaced.
        force: Whether a recipe may be.
        beside: What is saved meanwhile is beside this; default the bundle.

    Raises:
        UsageError: Something is there already.
    """

    def __init__(
        self,
        session: Session,
        shown: Output,
        device: Device,
        max_f1_drop: float | None,
        recipe: Path | None,
        may_replace: bool,
        force: bool,
        beside: Path | None = None,
    ) -> None:
        self._session, self._shown, self._device = session, shown, device
        self._drop_points = MAX_F1_DROP_POINTS if max_f1_drop is None else max_f1_drop
        if not isfinite(self._drop_points):
            raise UsageError(f"--max-f1-drop {max_f1_drop} is no number of points.", fix="For example: 0.5.")
        bundle = session.bundle
        self._recipe = recipe or Path("calibration") / f"{bundle.path.resolve().name}-{device}.toml"
        if self._recipe.exists() and not force:
            raise UsageError(
                f"{self._recipe} is there already.",
                fix="Give another --write-recipe, or add --force.",
                path=self._recipe,
            )
        for graph, files in bundle.manifest.graphs.items():
            there = [precision for precision in ALLOWED[device] if precision in files]
            if there and not may_replace:
                raise UsageError(
                    f"The bundle {bundle.path} has {graph} in {there[0]} already, which might be made.",
                    fix="Add --force to replace what is made, or give --out.",
                )
        self._place, self._target = (
            (beside or bundle.path).resolve(),
            self._recipe.resolve(),
        )  # "." has no name, and is gone in the end
        self._progress_file = self._place.with_name(f".{self._place.name}.search-{device}.jsonl")
        self._found: Found | None = None
        self._dataset: DataSet | None = None
        self._found_recipe: Recipe | None = None

    def run(
        self,
        source: Source,
        data: Path,
        split: str,
        judge_split: str | None,
        faces_dir: Path | None,
        test_data: Path | None,
        leave_out_test: bool,
    ) -> tuple[dict[GraphName, Precision], dict[GraphName, Sequence[str]]]:
        """Searches; gives the graphs that are to be made, and what is kept back in them.

        Raises:
            DataError: Nothing is left to judge on, or some of it is in a test split.
        """
        chosen = _to_judge(self._session, source, data, split, judge_split, faces_dir)
        tests = find_test_splits(data, self._session.architecture, faces_dir, test_data)
        self._dataset, _ = without_test(chosen, tests, leave_out=leave_out_test)
        if not self._dataset.order:
            raise DataError(
                "All that is left to judge on is in a test split, too.", fix="Name another split with --judge-split."
            )
        for warning in few_warnings(len(self._dataset.order)):
            self._shown.status(f"warning: {warning}")
        self._found = self._searched(source, self._dataset)
        digest = _digest(self._dataset)  # and that of the bundle, before it gets more graphs
        self._found_recipe = recipe_from_found(
            self._found, source.settings, self._session.bundle, self._dataset.source, digest, str(self._recipe)
        )
        wanted: dict[GraphName, Precision] = {
            graph: choice.precision for graph, choice in self._found.choices.items() if choice.precision != "fp32"
        }
        return wanted, {graph: choice.keep for graph, choice in self._found.choices.items()}

    @property
    def dataset(self) -> DataSet | None:
        """What was judged on, once it has run."""
        return self._dataset

    def found_document(self) -> dict[str, object]:
        """What was found, for programs."""
        assert self._found_recipe is not None
        recipe = self._found_recipe
        document = {"recipe": self._recipe, "precision": recipe.precision, "keep": recipe.keep}
        return {**document, "evidence": recipe.evidence}

    def results(self, dry_run: bool) -> list[Table | str]:
        """Writes the recipe, and says what was found, for people; once all graphs are written.

        Raises:
            EnvironmentProblem: The recipe can't be written.
        """
        assert self._found is not None
        assert self._dataset is not None
        assert self._found_recipe is not None
        recipe = self._found_recipe
        text = toml_from_recipe(recipe, "Found by `fmmt calibrate --auto`.")
        if not dry_run:
            with disk_problems(self._target, len(text)):
                self._target.parent.mkdir(parents=True, exist_ok=True)
                temporary = self._target.with_name(f".{self._target.name}.tmp")
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(self._target)
        self._progress_file.unlink(missing_ok=True)
        ending = f"{'would write' if dry_run else 'wrote'} the recipe {self._recipe}"
        return [*found_parts(self._found, self._dataset.source), ending]

    def _searched(self, source: Source, dataset: DataSet) -> Found:
        session, shown = self._session, self._shown
        bundle, graphs = session.bundle, graphs_of(session.architecture)
        settings = {"calibrated_on": source.digest, "settings": asdict(source.settings), "drop": self._drop_points}
        progress = ProgressFile(self._progress_file, inputs_digest(bundle, _digest(dataset), settings))
        if len(progress):
            shown.status(f"going on after {len(progress)} judgements of an interrupted search")
        scratch = create_sibling(self._place)  # which is found and removed by whoever writes here after a kill
        with session.reference("torch") as reference, scratch as folder:
            with shown.progress("PyTorch float32", len(dataset.order)) as advance:
                judge = judge_from_bundle(bundle, dataset, reference, threads=session.threads, advance=advance)
            if not judge.labelled:
                shown.status("warning: labels are missing: F1 is not known, and only decisions are held to a rule")
            return find_precisions(
                {graph: bundle.graph(graph) for graph in graphs},
                dict.fromkeys(graphs, ALLOWED[self._device]),
                judge.judge,
                emulated_maker(bundle, session.threads, source.calibrator(graphs), folder),
                EquivalenceRule(MAX_CHANGED_SHARE, self._drop_points / 100),
                progress=progress,
                status=shown.status,
            )


def _to_judge(
    session: Session, source: Source, data: Path, split: str, judge_split: str | None, faces_dir: Path | None
) -> DataSet:
    """Another split (val, unless asked otherwise), or those dialogues of the same that were not calibrated on."""
    judged = judge_split or "val"
    dataset = session.dataset(data, judged, faces_dir, None)
    used = {dialogue.id for dialogue in source.data.dataset.dialogues}
    if judged != split:
        return dataset
    rest = tuple(dialogue for dialogue in dataset.dialogues if dialogue.id not in used)
    if not rest:
        raise DataError(
            f"All {len(used)} dialogues of {split} are calibrated on, and none is left to judge on.",
            fix="Take fewer with --dialogues, or name another split with --judge-split.",
        )
    kept = {utterance.id for dialogue in rest for utterance in dialogue.utterances}
    return DataSet(dataset.source, rest, tuple(name for name in dataset.order if name in kept))


def _digest(dataset: DataSet) -> str:
    contents = b"".join(digest for content in content_of(dataset) for digest in content.digests)
    return sha256(contents).hexdigest()


def found_parts(found: Found, source: str) -> list[Table | str]:
    """What was tried and found, for people."""
    rows = [
        (
            text_from_precisions({graph: choice.precision for graph, choice in attempt.graphs.items()})
            if len(attempt.graphs) != 1
            else "=".join(next((g, c.precision) for g, c in attempt.graphs.items())),
            f"{max((c.cost.flops_share for c in attempt.graphs.values()), default=0):.1%}",
            "–" if attempt.verdict.judgement is None else f"{attempt.verdict.judgement.agreement:.2%}",
            _points(attempt.verdict.judgement.f1.judged_difference)
            if attempt.verdict.judgement is not None and attempt.verdict.judgement.f1 is not None
            else "–",
            "holds" if attempt.holds else "; ".join(attempt.problems),
        )
        for attempt in found.attempts
    ]
    chosen = [
        (graph, choice.precision, f"{choice.cost.flops_share:.1%}", ", ".join(choice.keep) or "–")
        for graph, choice in found.choices.items()
    ]
    return [
        Table(f"tried on {source}", ("precisions", "kept back", "agree", "ΔF1", "verdict"), rows),
        Table("found", ("graph", "precision", "kept back", "which"), chosen),
        f"About {found.relative_time:.2f} of float32's time, as products and bytes are counted.",
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
