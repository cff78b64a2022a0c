"""What `fmmt calibrate` is asked to make, and how: from its options, or from a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import precisions_from_option
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.planning import (
    check_calibratable,
    check_products_left,
    names_to_keep_back,
    products_kept_back,
)
from fmmt_deploy.calibration.recipes import check_patterns, read_recipe
from fmmt_deploy.calibration.settings import CalibrationSettings, MethodChoice
from fmmt_deploy.calibration.thresholds import check_percentile
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line; None where nothing was."""

    precision: str | None
    recipe: Path | None
    keep_back: tuple[str, ...]
    method: MethodChoice | None
    percentile: float | None
    smooth: str | None
    dialogues: int | None
    seed: int | None

    def check(self, auto: bool, **of_auto: object) -> None:
        """Refuses options that mean nothing together.

        Raises:
            UsageError: Two of them say what is to be made, none does, or one is about `--auto` without it.
        """
        ways = {"--precision": self.precision is not None, "--recipe": self.recipe is not None, "--auto": auto}
        chosen = [name for name, given in ways.items() if given]
        if len(chosen) != 1:
            found = " and ".join(chosen) or "none of them"
            raise UsageError(
                f"One of {', '.join(ways)} says what is to be made; found {found}.",
                fix="For example: --precision swin=int8,plm=int8.",
            )
        if self.keep_back and self.precision is None:
            raise UsageError(f"--keep-back goes with --precision, not with {chosen[0]}.", fix="Leave one of them out.")
        idle = [name for name, value in of_auto.items() if value is not None and not auto]
        if idle:
            option = "--for" if idle[0] == "device" else f"--{idle[0].replace('_', '-')}"
            raise UsageError(f"{option} is about --auto.", fix=f"Add --auto, or leave out {option}.")

    @staticmethod
    def check_values(split: str, judge_split: str | None, least_db: float) -> None:
        """Refuses values that no data and no graph could make sense of.

        Raises:
            UsageError: Something is to be found on test data, or a limit is no number.
        """
        for option, name in (("--split", split), ("--judge-split", judge_split)):
            if name == "test":
                raise UsageError(
                    f"{option} test: nothing is chosen on test data.",
                    why="F1 on them would then flatter.",
                    fix=f"Use {option} train or {option} val.",
                )
        if isnan(least_db):
            raise UsageError("--min-sqnr nan: a number of dB is needed.", fix="10 is the default.")

    def settings(self, architecture: Architecture) -> CalibrationSettings:
        """How to calibrate: as asked for, else as the recipe says, else as usual.

        Raises:
            UsageError: The recipe or a value makes no sense.
        """
        usual = CalibrationSettings() if self.recipe is None else read_recipe(self.recipe).of(architecture).calibration
        percentile = usual.percentile if self.percentile is None else self.percentile
        check_percentile(percentile)
        method = self.method or usual.method
        if self.percentile is not None and method not in ("percentile", "best"):
            raise UsageError(
                f"--percentile is not about the method {method}.", fix="Add --method percentile, or leave it out."
            )
        return CalibrationSettings(
            method,
            percentile,
            usual.smooth if self.smooth is None else _graphs(self.smooth),
            self.dialogues or usual.dialogues,
            usual.seed if self.seed is None else self.seed,
        )

    def wanted(
        self, bundle: Bundle, may_replace: bool
    ) -> tuple[dict[GraphName, Precision], Mapping[GraphName, Sequence[str]]]:
        """Which graphs are to be made, and patterns of what is kept back in each.

        Raises:
            UsageError: Nothing is to be made, or what is there already; or a pattern fits nothing.
        """
        architecture = bundle.manifest.architecture
        if self.recipe is not None:
            recipe = read_recipe(self.recipe).of(architecture)
            wanted = check_calibratable(bundle, recipe.precisions(architecture), may_replace, others=True)
            keep: Mapping[GraphName, Sequence[str]] = recipe.keep
            check_patterns(recipe, {g: names_to_keep_back(bundle, g, recipe.precision[g]) for g in keep})
        else:
            wanted = check_calibratable(bundle, precisions_from_option(self.precision or "", architecture), may_replace)
            keep = products_kept_back(bundle, list(wanted), self.keep_back)
        check_products_left(bundle, wanted, keep)
        return wanted, keep


def _graphs(text: str) -> tuple[GraphName, ...]:
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in GRAPHS:
            raise UsageError(f"--smooth {text}: there is no graph {name!r}.", fix=f"Graphs are {', '.join(GRAPHS)}.")
    return tuple(graph for graph in GRAPHS if graph in names)
