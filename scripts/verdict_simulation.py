"""How often `fmmt eval`'s interval and verdict are right: 1,000 simulated test sets for each of several engines.

Prints the tables of docs/proof.md. The sets and engines are those of tests/evaluation/planted.py, which the tests use
with fewer sets. Takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.evaluation.planted import Planted

LOSSES = (0.0, 0.003, 0.005, 0.01, 0.03)
ENGINES = [Planted(0.0, 0.0), *(Planted(loss, flips) for flips in (0.003, 0.01) for loss in LOSSES)]
GROUPED = [Planted(loss, 0.01, alike=0.6) for loss in LOSSES]
WHOLE = [Planted(loss, 0.0, alike=0.99) for loss in (0.003, 0.005, 0.01)]
HEADER = (
    "| balanced flips | loss, points | interval holds it | EQUIVALENT | INCONCLUSIVE | DIFFERENT | detectable |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Prints a table for flips that hardly come in dialogues, one for flips that do, and one for whole dialogues."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000, help="Simulated test sets for each engine.")
    parser.add_argument("--resamples", type=int, default=10_000, help="Of each set's bootstrap.")
    asked = parser.parse_args()
    tables = (
        ("Flips nearly independent of each other", ENGINES),
        ("Flips in groups", GROUPED),
        ("Whatever is right in a dialogue lost at once, in few dialogues", WHOLE),
    )
    for title, engines in tables:
        say(f"{title}: {asked.sets} sets each, {asked.resamples} resamples\n\n{HEADER}")
        for planted in engines:
            say(row(planted, asked.sets, asked.resamples))
        say("")
    say(dialogues_ignored(asked.sets))


def say(line: str) -> None:
    """At once, also into a file."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def row(planted: Planted, sets: int, resamples: int) -> str:
    """One engine."""
    runs = list(planted.judged(sets, seed=1, resamples=resamples))
    covered = share([run.interval.low <= -planted.loss <= run.interval.high for run in runs])
    verdicts = [share([run.verdict == name for run in runs]) for name in ("EQUIVALENT", "INCONCLUSIVE", "DIFFERENT")]
    detectable = f"{100 * np.median([run.detectable for run in runs]):.2f}"
    cells = (f"{planted.flips:.1%}", f"{100 * planted.loss:g}", covered, *verdicts, detectable)
    return f"| {' | '.join(cells)} |"


def dialogues_ignored(sets: int) -> str:
    """What an interval covers that takes utterances as independent, where they are not."""
    planted = Planted(0.01, 0.01, alike=0.6)
    runs = planted.judged(sets, seed=1, resamples=1000, by_dialogue=False)
    covered = share([run.interval.low <= -planted.loss <= run.interval.high for run in runs])
    return f"The same with flips in groups and a loss of 1 point, but taking utterances as independent: {covered}"


def share(hits: list[bool]) -> str:
    """A percentage with its Monte Carlo standard error."""
    mean = float(np.mean(hits))
    return f"{100 * mean:.1f} ± {100 * np.sqrt(mean * (1 - mean) / len(hits)):.1f} %"


if __name__ == "__main__":
    main()
