"""All steps, in their order: what matters most comes first, and leaves time for what is measured last."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from fmmt_deploy.benchmark.choices import Choice, choice_from_option
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.tensorrt.flavour import FlavourName
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.verification import measuring, preparing
from fmmt_deploy.verification.outcomes import Step
from fmmt_deploy.verification.settings import SCENARIOS, Settings, files_step

__all__ = ["engine_names", "steps_of"]

MEASURING_SECONDS = 200.0
"""What is left to stages and times from files to labels by whatever comes before and could be done without."""

FILES_SECONDS = 40.0
"""What one scenario with one mean number of faces needs at least, and the others leave to it."""


def steps_of(settings: Settings) -> tuple[Step, ...]:
    """What is done, in order; the names of steps are what they need each other by."""
    return (
        Step("environment", 60, preparing.environment, gpu=False),
        Step("rates", 60, preparing.rates),
        Step("model", 180, preparing.make_model, gpu=False, needs=("environment",)),
        Step("reference", 60, preparing.compare_reference, needs=("model",)),
        *_engines(settings),
        Step("stages", 45, measuring.stages, needs=("model",)),
        *_files_to_labels(settings),
    )


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Every engine that is to be measured, as `--engine` names it."""
    names = [choice_from_option(text, PRESETS[settings.model]).name for text in settings.others]
    names += [_name(flavour, precision) for precision in settings.precisions for flavour in settings.flavours]
    return tuple(dict.fromkeys(names))


def _files_to_labels(settings: Settings) -> Iterator[Step]:
    tables = list(product(settings.faces, SCENARIOS))
    for number, (faces, scenario) in enumerate(tables, 1):
        measured = partial(measuring.files_to_labels, faces=faces, scenario=scenario)
        leaves = FILES_SECONDS * (len(tables) - number)
        yield Step(files_step(faces, scenario), 120, measured, needs=("model",), leaves=leaves)


def _engines(settings: Settings) -> Iterator[Step]:
    """For each precision: its graphs, TensorRT's engines, and every engine of that precision held to the reference."""
    others = [choice_from_option(text, PRESETS[settings.model]) for text in settings.others]
    for number, precision in enumerate(settings.precisions):
        leaves = MEASURING_SECONDS if number else 0.0
        if precision != "fp32":
            cast = partial(preparing.cast, precision=precision)
            yield Step(f"cast {precision}", 120, cast, gpu=False, needs=("model",), leaves=leaves)
        for flavour in settings.flavours:
            yield from _built(flavour, precision, leaves)
        early = [c for c in others if set(c.precisions.values()) == {precision} and c.kind != "torch-compiled"]
        for choice in early:
            yield from _other(choice, leaves)
        others = [choice for choice in others if choice not in early]
    for choice in others:  # in other precisions, or compiled, which takes minutes
        yield from _other(choice, MEASURING_SECONDS)


def _built(flavour: FlavourName, precision: Precision, leaves: float) -> Iterator[Step]:
    name = _name(flavour, precision)
    build = partial(preparing.build, flavour=flavour, precision=precision)
    itself = partial(preparing.agrees_with_itself, flavour=flavour, precision=precision)
    graphs = ("model",) if precision == "fp32" else (f"cast {precision}",)
    yield Step(f"build {name}", 150, build, gpu=False, needs=graphs, leaves=leaves)
    yield Step(f"consistency {name}", 120, itself, needs=(f"build {name}",), leaves=leaves, readies=name)
    yield _held(name, (f"build {name}",), leaves)
    if flavour == "trt-rtx" and not leaves:  # it compiles by shape when it runs; those that matter less do it then
        tested = (f"consistency {name}", f"parity {name}")
        yield Step(f"warm up {name}", 60, partial(measuring.warm_up, name=name), needs=tested, leaves=MEASURING_SECONDS)


def _other(choice: Choice, leaves: float) -> Iterator[Step]:
    """PyTorch computes in lower precision what the float32 graphs' weights say; others need graphs of that type."""
    low = sorted(set(choice.precisions.values()) - {"fp32"})
    casts = () if choice.kind.startswith("torch") else tuple(f"cast {precision}" for precision in low)
    compiles = choice.kind == "torch-compiled"
    yield _held(choice.name, ("model", *casts), leaves, 120 if compiles else 40)
    if compiles:
        warm = partial(measuring.warm_up, name=choice.name)
        needs = (f"parity {choice.name}",)
        yield Step(f"warm up {choice.name}", 120, warm, needs=needs, leaves=leaves, readies=choice.name)


def _held(name: str, needs: tuple[str, ...], leaves: float, seconds: float = 40) -> Step:
    parity = partial(preparing.compare, name=name)
    return Step(f"parity {name}", seconds, parity, needs=needs, leaves=leaves, readies=name)


def _name(flavour: str, precision: Precision) -> str:
    return flavour if precision == "fp32" else f"{flavour}:{precision}"
