"""How much faster a step is when dialogues are encoded once and utterances are batched: beside the published way.

The published way takes each utterance alone, pads its whole dialogue to the language model's 512 positions, encodes it
anew, and takes the loss's gradient through the Swin too, which it then never uses. All ways here make the same step:
the same utterances, faces and noise, no dropout, one optimiser step; loss and gradients agree (checked before anything
is timed, and by tests/training/test_published_way.py). They are timed in turns within one process, forward and
backward pass and step of the optimiser; the ratio is the median of neighbouring pairs with a bootstrap interval.

`benchmarks/training-speed.sh -o benchmarks/results/NAME.json` runs it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.benchmark.statistics import paired_ratio, summarise
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.reference.presets import PRESETS, random_model
from fmmt_deploy.training.batches import TargetBatch
from fmmt_deploy.training.loading import TargetData
from fmmt_deploy.training.objective import Trainee
from fmmt_deploy.training.optimisation import optimisers_of
from fmmt_deploy.training.published_way import published_passes
from fmmt_deploy.training.settings import RunSettings, Settings, TargetSettings
from fmmt_deploy.types import DataSet

PREDICTED = {
    ("tiny", "dialogues"): 6.0,
    ("tiny", "utterances"): 3.0,
    ("full", "dialogues"): 4.3,
    ("full", "utterances"): 2.1,
}
"""Written down before the first measurement, of `published` beside `ours`: the full model's from its operations (see
docs/training.md), the small one's from how many passes are saved, for there each pass costs the same whatever it has.
"""

Way = Callable[[], float]


def settings_of(order: str, utterances: int) -> Settings:
    """Of a step of so many utterances."""
    target = TargetSettings(order=order, batch_size=utterances, accumulate=1, jitter=0, noise="gumbel")  # type: ignore[arg-type]
    return Settings(target=target, run=RunSettings(precision="fp32", workers=0, face_cache_gib=1))


def labelled(dataset: DataSet) -> DataSet:
    """With labels in turns."""
    number = iter(range(10**6))
    dialogues = tuple(
        replace(d, utterances=tuple(replace(u, label=next(number) % 7) for u in d.utterances))
        for d in dataset.dialogues
    )
    return replace(dataset, dialogues=dialogues)


def ways_of(architecture: Architecture, batch: TargetBatch, settings: Settings) -> dict[str, Way]:
    """Each makes the same step and says its loss."""
    model = random_model(architecture)
    trainees = {moves: Trainee(model, moves_faces=moves) for moves in (True, False)}
    optimiser = optimisers_of(model, settings, {"target": 10**6})["target"]
    assert architecture.plm is not None
    alone = published_passes(batch, architecture.plm.max_tokens)

    def step(passes: Sequence[TargetBatch], gradient_of_faces: bool) -> float:
        trainee = trainees[gradient_of_faces]
        trainee.enter("target")
        total = 0.0
        for each in passes:
            loss = trainee(each)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(optimiser.parameters, optimiser.clip)
        optimiser.set_rates(1)
        optimiser.adam.step()
        model.zero_grad(set_to_none=True)
        return total

    return {
        "published": lambda: step(alone, True),
        "published, no gradient of faces": lambda: step(alone, False),
        "ours": lambda: step([batch], False),
    }


def check_equal(architecture: Architecture, batch: TargetBatch) -> float:
    """Largest difference of the losses of both ways with the same weights."""
    trainee = Trainee(random_model(architecture))
    trainee.enter("target")
    assert architecture.plm is not None
    with torch.no_grad():
        alone = sum(trainee(each).item() for each in published_passes(batch, architecture.plm.max_tokens))
        together = trainee(batch).item()
    if abs(alone - together) > 1e-5:
        raise SystemExit(f"the ways differ: loss {alone} alone, {together} together")
    return abs(alone - together)


def measure(ways: dict[str, Way], rounds: int, warm_up: bool) -> dict[str, list[float]]:
    """Milliseconds of each way's steps, in turns; every other round in the opposite order."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1 if warm_up else 0, rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            begin = time.perf_counter()
            ways[name]()
            if number >= 0:
                times[name].append(1000 * (time.perf_counter() - begin))
                print(f"  {name}: {times[name][-1]:.0f} ms", file=sys.stderr, flush=True)  # noqa: T201
    return times


def report(size: str, order: str, utterances: int, faces: float, dialogues: int, rounds: int) -> dict[str, object]:
    """Measures one kind of step."""
    architecture = PRESETS[size]  # type: ignore[index]
    with tempfile.TemporaryDirectory() as folder:
        dataset = labelled(meld_shaped(architecture, Path(folder), dialogues, faces))
        settings = settings_of(order, utterances)
        ((batch,), *_) = TargetData(dataset, architecture, None, settings).batches(epoch=1)
    count = len(batch.labels)
    difference = check_equal(architecture, batch)
    ways = ways_of(architecture, batch, settings)
    if size == "full":  # a step takes minutes: beside that, what a first one allocates is nothing
        del ways["published, no gradient of faces"]
    times = measure(ways, rounds, warm_up=size == "tiny")
    own = times["ours"]
    return {
        "model": size,
        "order": order,
        "utterances": count,
        "dialogues": len(batch.inputs["input_ids"]),
        "tokens": int(batch.inputs["attention_mask"].sum()),
        "faces": len(batch.faces),
        "loss_difference": difference,
        "ms_per_utterance": {name: summarise([t / count for t in taken]).to_json() for name, taken in times.items()},
        "speed_up": {name: paired_ratio(taken, own).to_json() for name, taken in times.items() if name != "ours"},
        "predicted": PREDICTED[size, order],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the published sizes; default: small ones")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--faces", type=float, default=10, help="mean number an utterance")
    parser.add_argument("--orders", nargs="+", default=["dialogues", "utterances"])
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    size = "full" if given.full else "tiny"
    reports = []
    for order in given.orders:
        print(f"{size}, {order}", file=sys.stderr)  # noqa: T201
        whole = order == "dialogues"  # one of nine turns, MELD's mean; or four utterances of as many dialogues
        reports.append(report(size, order, 9 if whole else 4, given.faces, 1 if whole else 24, given.rounds))
    document = {
        "schema": "fmmt.training-speed/1",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "reports": reports,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for each in reports:
        ratio = each["speed_up"]["published"]  # type: ignore[index]
        print(  # noqa: T201
            f"{each['model']}, {each['order']}: {ratio['median']:.2f}× as fast as published "
            f"({ratio['low']:.2f} to {ratio['high']:.2f}, {ratio['pairs']} pairs); predicted {each['predicted']}×"
        )


if __name__ == "__main__":
    main()
