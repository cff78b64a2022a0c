"""Measures ways of working on the same dialogues, one after the other in one run, so that ratios hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fmmt_deploy.benchmark.choices import Device
from fmmt_deploy.benchmark.statistics import warm_up
from fmmt_deploy.benchmark.ways import StageClock, Way, WayName
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.errors import FmmtError, UnstableError
from fmmt_deploy.pipeline.run import StageName
from fmmt_deploy.types import DataSet, Dialogue

__all__ = ["Contender", "Measurement", "measure"]

WARM_UP_TOLERANCE = 0.25
"""A contender has settled when the medians of two consecutive pairs of answers are within a quarter of each other."""

MAX_FACES_TO_WARM_UP = 10


@dataclass(frozen=True)
class Contender:
    """One way of working with one engine.

    Attributes:
        engine: What computes.
        way: How.
        clock: Times the stages of that way.
        device: Where.
        precisions: Of each graph; float32 for those that are not named.
    """

    engine: str
    way: Way
    clock: StageClock
    device: Device = "cpu"
    precisions: Precisions = field(default_factory=dict)


@dataclass
class Measurement:
    """What a contender took.

    Attributes:
        engine: See `Contender`.
        way: See `Contender`.
        answers_ms: Milliseconds of every answer of every round.
        dialogues_ms: Milliseconds of every dialogue of every round; index i of one contender belongs with i of others.
        stages_ms: Milliseconds of each stage, over all rounds.
        device: See `Contender`.
        precisions: See `Contender`.
    """

    engine: str
    way: WayName
    answers_ms: list[float] = field(default_factory=list)
    dialogues_ms: list[float] = field(default_factory=list)
    stages_ms: dict[StageName, float] = field(default_factory=dict)
    device: Device = "cpu"
    precisions: Precisions = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    dataset: DataSet,
    rounds: int,
    rates: Mapping[str, Callable[[], float]],
    advance: Callable[[int], None] = lambda _: None,
    *,
    warm_up_rounds: int = 0,
    enough: Callable[[], bool] = lambda: False,
    dropped: Callable[[Contender, FmmtError], None] | None = None,
) -> tuple[list[Measurement], dict[str, list[float]]]:
    """Lets every contender answer every dialogue, in turns, after each has settled.

    One on a GPU answers each twice in its turn: once as fast as it can, and once more to time the stages by themselves.

    Args:
        contenders: What is compared; every other turn they go in the opposite order.
        dataset: The dialogues.
        rounds: How often, at most.
        rates: The machine's matrix-product rates in TFLOP/s by name (see `rate_name`), sampled between the dialogues.
        advance: Told of every dialogue that a contender has done.
        warm_up_rounds: How often every dialogue is answered before; whatever compiles, or records, does it by shape.
        enough: Asked after every round whether to stop; with `dropped`, also while contenders warm up.
        dropped: Told of a contender that fails before the first round, or for which there is no time, and without which
            the others go on; by default a failure is an error.

    Returns:
        One measurement a contender, and the samples of each rate.

    Raises:
        UnstableError: A contender's time never settled.
    """
    contenders = list(_ready(contenders, dataset.dialogues, warm_up_rounds, enough, dropped))
    measured = [Measurement(c.engine, c.way.name, device=c.device, precisions=c.precisions) for c in contenders]
    sampled: dict[str, list[float]] = {name: [] for name in rates}
    for turn, dialogue in enumerate(_turns(dataset.dialogues, rounds, enough)):
        for name, sample in rates.items():
            sampled[name].append(sample())
        both = list(zip(contenders, measured, strict=True))
        for contender, measurement in both[:: -1 if turn % 2 else 1]:
            times = _answered(contender, dialogue)
            measurement.answers_ms += times
            measurement.dialogues_ms.append(sum(times))
            advance(1)
    for contender, measurement in zip(contenders, measured, strict=True):
        measurement.stages_ms = dict(contender.clock.stages_ms)
    return measured, sampled


def _turns(dialogues: Sequence[Dialogue], rounds: int, enough: Callable[[], bool]) -> Iterator[Dialogue]:
    for done in range(rounds):
        if done and enough():
            return
        yield from dialogues


def _ready(
    contenders: Sequence[Contender],
    dialogues: Sequence[Dialogue],
    warm_up_rounds: int,
    enough: Callable[[], bool],
    dropped: Callable[[Contender, FmmtError], None] | None,
) -> Iterator[Contender]:
    for contender in contenders:
        try:
            hurries = enough if dropped is not None else lambda: False
            _in_time(hurries)
            _settle(contender, dialogues)
            for dialogue in (d for _ in range(warm_up_rounds) for d in dialogues):
                _in_time(hurries)  # what compiles by shape may take long for every one
                contender.way.answer(dialogue)
        except FmmtError as error:
            if dropped is None:
                raise
            dropped(contender, error)
            continue
        contender.clock.stages_ms.clear()
        yield contender


def _in_time(enough: Callable[[], bool]) -> None:
    if enough():
        raise UnstableError("There was no time to warm it up.")


def _answered(contender: Contender, dialogue: Dialogue) -> list[float]:
    clock = contender.clock
    if clock.wait is None:
        return contender.way.answer(dialogue)
    clock.running = False
    times = contender.way.answer(dialogue)
    clock.running = True
    contender.way.answer(dialogue)
    return times


def _settle(contender: Contender, dialogues: Iterable[Dialogue]) -> None:
    """Answers one utterance again and again until its time settles."""
    shortest = min(dialogues, key=lambda dialogue: len(dialogue.utterances))
    utterance = shortest.utterances[0]
    short = replace(
        utterance,
        faces=utterance.faces[:MAX_FACES_TO_WARM_UP],
        vision_length=min(utterance.vision_length, MAX_FACES_TO_WARM_UP),
    )
    dialogue = replace(shortest, utterances=(short,))
    warm_up(lambda: sum(contender.way.answer(dialogue)), window=2, tolerance=WARM_UP_TOLERANCE, max_windows=12)
