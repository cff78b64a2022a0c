"""What calibration remembers of a graph while data stream through: what its products read and make, and magnitudes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.observing import Inputs
from fmmt_deploy.calibration.sites import Site
from fmmt_deploy.calibration.statistics import ColumnExtremes, TensorStatistics
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GraphStatistics"]

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]

_COMPUTED = ("token_states", "face_logits")
"""Inputs that other graphs make."""


class GraphStatistics:
    """Of one float32 graph; an `Observer`.

    Args:
        graph: Which.
        sites: Its products that may get 8 bits.
        seed: Of the rows that are sampled.
        smoothing: For tensors that products read, (K,): what their columns are divided by before they are looked at.
    """

    def __init__(
        self,
        graph: GraphName,
        sites: Iterable[Site],
        seed: int = 0,
        smoothing: Mapping[str, Floats] | None = None,
    ) -> None:
        self.graph, self.sites, self.smoothing = graph, tuple(sites), smoothing or {}
        self.inputs = {site.input: TensorStatistics(site.input, site.rows, seed) for site in self.sites}
        self.outputs = {site.output: ColumnExtremes(site.output, site.columns) for site in self.sites}
        self.largest: dict[str, float] = {}
        self.cases = 0
        self._real: NDArray[np.bool_] | None = None
        self._text, self._is_new = "", True

    def begin(self, inputs: Inputs) -> None:
        """Takes note of which rows are real: a padded token's are computed, but no answer depends on them.

        A text that was the last one already is not looked at again. `observe_graphs` sees to that, but not where an
        interrupted collection goes on amid a dialogue.

        Raises:
            DataError: The data themselves are not finite.
        """
        for name, array in inputs.items():
            if array.dtype.kind == "f" and name not in _COMPUTED and not np.isfinite(array).all():
                raise DataError(
                    f"The input {name} of {self.graph} has values that are not finite, in batch {self.cases}.",
                    why="No range can be told from NaN or infinity.",
                    fix="Repair the data, or calibrate on others.",
                    tensor=name,
                )
        mask = inputs.get("attention_mask")
        self._real = None if mask is None else np.asarray(mask, bool).reshape(-1)
        text = sha256(inputs["input_ids"].tobytes()).hexdigest() if "input_ids" in inputs else ""
        self._is_new = not text or text != self._text
        self._text = text
        self.cases += self._is_new

    def observe(self, name: str, tensor: Tensor) -> None:
        """Takes a tensor into account.

        Raises:
            DataError, PrecisionError: It is not finite; see `ColumnExtremes.update`.
        """
        if not self._is_new or not tensor.is_floating_point() or not tensor.numel():
            return
        low, high = tensor.aminmax()
        self.largest[name] = max(self.largest.get(name, 0.0), float(high), -float(low))
        if name in self.inputs:
            self.inputs[name].update(self._smoothed(name, self._rows(tensor)), self.cases)
        if name in self.outputs:
            self.outputs[name].update(tensor.reshape(-1, tensor.shape[-1]))  # also of padding: no row may overflow

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was seen; see `load`."""
        found: dict[str, NDArray[Any]] = {
            "cases": np.array(self.cases),
            "text": np.array(self._text),
            "names": np.array(list(self.largest)),
            "largest": np.array(list(self.largest.values())),
        }
        for number, seen in enumerate(self.inputs.values()):
            found |= {f"inputs/{number}/{key}": array for key, array in seen.arrays().items()}
        for number, made in enumerate(self.outputs.values()):
            found |= {f"outputs/{number}/{key}": array for key, array in made.arrays().items()}
        return found

    def load(self, arrays: Arrays) -> None:
        """Goes on where the statistics were that `arrays` was called on; of the same graph, sites and seed."""
        self.cases, self._text = int(arrays["cases"]), str(arrays["text"])
        self.largest = dict(zip(arrays["names"].tolist(), arrays["largest"].tolist(), strict=True))
        for number, name in enumerate(self.inputs):
            self.inputs[name] = TensorStatistics.from_arrays(name, _under(f"inputs/{number}/", arrays))
        for number, name in enumerate(self.outputs):
            self.outputs[name] = ColumnExtremes.from_arrays(name, _under(f"outputs/{number}/", arrays))

    def _smoothed(self, name: str, rows: Tensor) -> Tensor:
        if name not in self.smoothing:
            return rows
        import torch

        return rows / torch.from_numpy(self.smoothing[name])

    def _rows(self, tensor: Tensor) -> Tensor:
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self._real is None:
            return rows
        import torch

        return rows[torch.from_numpy(self._real)]


def _under(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
