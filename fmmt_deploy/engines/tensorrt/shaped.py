"""What is known of an engine's runs with inputs of one shape, so that it is worked out only once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmmt_deploy.engines.tensorrt.layout import Layout, layout_of
from fmmt_deploy.engines.tensorrt.program import Context

__all__ = ["Shaped"]

_REPEATS = 2
"""The run of a shape at which it is captured, until it was evicted."""


class Shaped:
    """One shape of all inputs, and where each of them comes from.

    Args:
        profile: The optimisation profile that takes it.
        shapes: Of every input.
        inputs: Types of every input.
        from_device: Which inputs are on the device already.
        outputs: Shape and type of each output.

    Attributes:
        packed: How the inputs from the host are packed.
        others: How the other inputs lie where they need memory of their own.
        outputs: How the outputs lie.
        runs: Runs so far, as `Graphs` counts them.
        patience: At which of them it is captured.
    """

    def __init__(
        self,
        profile: int,
        shapes: Mapping[str, tuple[int, ...]],
        inputs: Mapping[str, np.dtype[Any]],
        from_device: frozenset[str],
        outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    ) -> None:
        self.profile, self.shapes = profile, shapes
        self.packed: Layout = layout_of((n, s, inputs[n]) for n, s in shapes.items() if n not in from_device)
        self.others: Layout = layout_of((n, s, inputs[n]) for n, s in shapes.items() if n in from_device)
        self.outputs: Layout = layout_of((n, *shape_and_type) for n, shape_and_type in outputs.items())
        self.runs, self.patience = 0, _REPEATS

    def bind(self, context: Context, packed: int, others: int, outputs: int) -> None:
        """Tells a context where everything is, if it lies as laid out here from these addresses on."""
        for layout, start in ((self.packed, packed), (self.others, others), (self.outputs, outputs)):
            for place in layout.places:
                context.bind(place.name, start + place.offset)
