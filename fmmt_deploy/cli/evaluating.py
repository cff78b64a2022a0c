"""What `fmmt eval` does with its options: checks them, asks both sides, and judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmmt_deploy.cli.output import Output
from fmmt_deploy.cli.sessions import Session
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.errors import UsageError
from fmmt_deploy.evaluation.equivalence import check_settings
from fmmt_deploy.evaluation.modes import Draw, Mode, ModeName, asked_from_dataset, modes_from_draws
from fmmt_deploy.evaluation.swapped import SwappedRuns, swapped_runs
from fmmt_deploy.evaluation.swaps import SwapMatrix, swap_matrix
from fmmt_deploy.types import DataSet

__all__ = ["Wanted", "judged"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        engine: What is scored.
        reference: What it is judged against; None for scores alone.
        noise: As `--noise`.
        seeds: The seeds of the draws.
        margin: 0 to 1.
        published: 0 to 1, or None.
        swap: Whether to run every mixture.

    Raises:
        UsageError: A combination that makes no sense.
    """

    engine: EngineKind
    reference: EngineKind | None
    noise: str
    seeds: Sequence[int]
    margin: float
    published: float | None
    swap: bool

    def __post_init__(self) -> None:
        check_settings(self.margin)
        if len(self.seeds) > 1 and self.noise != "gumbel":
            raise UsageError(
                f"--seeds {len(self.seeds)} needs noise that depends on a seed.", fix="Add --noise gumbel."
            )
        if self.swap and self.reference is None:
            raise UsageError("--swap mixes the engine with a reference.", fix="Add --reference torch, for example.")
        if self.published is None:
            return
        if not 0 <= self.published <= 1:
            raise UsageError(
                f"--published is a weighted F1 in points, found {100 * self.published:g}.", fix="Try 66.73."
            )
        if self.reference is None or len(self.seeds) == 1:
            raise UsageError(
                "--published is placed in the reference's band, which takes several seeds.",
                fix="Add --reference torch --noise gumbel --seeds 5.",
            )

    @property
    def mode(self) -> ModeName:
        """How the noise is treated."""
        return "none" if self.noise == "none" else "seeded" if self.noise == "gumbel" else "replayed"


def judged(
    shown: Output, session: Session, dataset: DataSet, wanted: Wanted
) -> tuple[tuple[Mode, ...], SwapMatrix | None]:
    """Scores the engine, and judges it where there is a reference.

    Returns:
        The modes, the first of which the verdict is about; and the mixtures with the first seed's noise, if they are
        asked for.

    Raises:
        DataError: An utterance has no label.
    """
    asked = asked_from_dataset(dataset)
    mixed = _mixed(shown, session, dataset, wanted)
    draws = [] if mixed is None else [mixed[0]]
    draws += [_draw(shown, session, dataset, wanted, seed) for seed in wanted.seeds[len(draws) :]]
    modes = modes_from_draws(
        asked,
        draws,
        wanted.mode,
        wanted.seeds if wanted.mode == "seeded" else (),
        session.architecture,
        tau=session.bundle.manifest.tau,
        threshold=session.bundle.manifest.threshold,
        margin=wanted.margin,
        published=wanted.published,
    )
    return modes, None if mixed is None else swap_matrix(mixed[1], dataset)


def _mixed(shown: Output, session: Session, dataset: DataSet, wanted: Wanted) -> tuple[Draw, SwappedRuns] | None:
    """Every mixture with the first seed's noise: two of them are the two sides, which then need no run of their own."""
    if not wanted.swap or wanted.reference is None:
        return None
    noise = session.noise(wanted.noise, wanted.seeds[0], dataset)
    right, engines = session.reference(wanted.reference), session.engines(wanted.engine)
    with right, engines, shown.progress("every mixture", len(dataset.order)) as advance:
        runs = swapped_runs(
            session.bundle,
            right,
            engines,
            dataset,
            noise=noise,
            batch_size=session.batch_size,
            threads=session.threads,
            advance=advance,
        )
    return Draw(noise, runs.answers[-1], runs.answers[0]), runs


def _draw(shown: Output, session: Session, dataset: DataSet, wanted: Wanted, seed: int) -> Draw:
    if len(wanted.seeds) > 1:
        shown.status(f"seed {seed}, {wanted.seeds.index(seed) + 1} of {len(wanted.seeds)}")
    noise = session.noise(wanted.noise, seed, dataset)
    answers = session.answers(session.engines(wanted.engine), dataset, noise)
    if wanted.reference is None:
        return Draw(noise, answers)
    return Draw(noise, answers, session.answers(session.reference(wanted.reference), dataset, noise))
