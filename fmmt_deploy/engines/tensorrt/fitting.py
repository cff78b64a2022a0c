"""Which optimisation profile takes some shapes, how large a batch may be, and what to say when none takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fmmt_deploy.engines.tensorrt.program import AXES, Limits
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GraphName

__all__ = ["Shapes", "batches", "fitting_profile"]

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every input."""


def fitting_profile(graph: GraphName, profiles: Sequence[Limits], shapes: Shapes) -> int:
    """The first profile that takes all shapes.

    Raises:
        UsageError: None does, or the inputs' sizes disagree.
    """
    _check_agreement(graph, shapes)
    for number, limits in enumerate(profiles):
        if all(_fits(shape, *limits[name]) for name, shape in shapes.items()):
            return number
    raise _unfit(graph, profiles, shapes)


def batches(graph: GraphName, profiles: Sequence[Limits], shapes: Shapes, rows: int) -> Iterator[tuple[int, int]]:
    """Cuts inputs that all share their first axis into batches, each as large as a profile takes.

    Args:
        graph: Which graph it is.
        profiles: What each takes.
        shapes: Of the whole inputs.
        rows: A batch has at most so many rows.

    Yields:
        The first row of each batch, and the first after it.

    Raises:
        UsageError: No profile takes such rows, or so few as are left, or the inputs are not equally long.
    """
    (total, *others) = {shape[0] for shape in shapes.values()}
    if others:
        raise UsageError(f"The inputs of {graph} should be equally long, found {dict(shapes)}.")
    ranges = [_rows(limits) for limits in profiles if _takes_rows(limits, shapes)]
    first = 0
    while first < total:
        wanted = min(rows, total - first)
        count = max((min(wanted, largest) for smallest, largest in ranges if smallest <= wanted), default=0)
        if not count:
            raise _unfit(graph, profiles, {name: (wanted, *shape[1:]) for name, shape in shapes.items()})
        yield first, first + count
        first += count


def _fits(shape: Sequence[int], smallest: Sequence[int], largest: Sequence[int]) -> bool:
    return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))


def _rows(limits: Limits) -> tuple[int, int]:
    """The numbers of rows that all inputs take."""
    return max(low[0] for low, _ in limits.values()), min(high[0] for _, high in limits.values())


def _takes_rows(limits: Limits, shapes: Shapes) -> bool:
    return all(_fits(shape[1:], limits[name][0][1:], limits[name][1][1:]) for name, shape in shapes.items())


def _check_agreement(graph: GraphName, shapes: Shapes) -> None:
    """TensorRT would find no fault with each input alone, and read beyond the shorter."""
    sizes: dict[str, int] = {}
    for name, axis, size in _named(shapes):
        if sizes.setdefault(axis, size) != size:
            raise UsageError(f"The inputs of {graph} disagree: {name} has {size} {axis}, others {sizes[axis]}.")


def _unfit(graph: GraphName, profiles: Sequence[Limits], shapes: Shapes) -> UsageError:
    for name, shape in shapes.items():  # axes that never vary: another model's data, or a mistake of the caller's
        fixed, low, high = len(AXES[name]), *profiles[0][name]
        if shape[fixed:] != low[fixed:] or low[fixed:] != high[fixed:]:
            expected = (*AXES[name], *low[fixed:])
            return UsageError(f"{graph} takes {name} with axes {expected}, found {shape}.", tensor=name)
    sizes = {axis: size for _, axis, size in _named(shapes)}
    ranges = [_ranges(limits) for limits in profiles]
    outside = [a for a, size in sizes.items() if not any(low <= size <= high for low, high in (r[a] for r in ranges))]
    found = " and ".join(f"{sizes[axis]} {axis}" for axis in outside or sizes)
    known = "; ".join(", ".join(f"{_text(*r[axis])} {axis}" for axis in sizes) for r in ranges)
    batch = "Use another --batch-size, or b" if set(outside or sizes) - {"tokens"} else "B"
    return UsageError(
        f"The engine of {graph} does not take {found}.",
        why=f"It was built for {known}.",
        fix=f"{batch}uild it for more: fmmt build --profile.",
    )


def _named(shapes: Shapes) -> Iterator[tuple[str, str, int]]:
    for name, shape in shapes.items():
        for axis, size in zip(AXES[name], shape, strict=False):
            yield name, axis, size


def _ranges(limits: Limits) -> dict[str, tuple[int, int]]:
    smallest = _named({name: low for name, (low, _) in limits.items()})
    largest = _named({name: high for name, (_, high) in limits.items()})
    return {axis: (low, high) for (_, axis, low), (_, _, high) in zip(smallest, largest, strict=True)}


def _text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
