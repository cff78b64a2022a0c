"""What run, parity and eval begin with: an opened bundle, a data set, noise, and the answers of an engine."""

from __future__ import annotations

from pathlib import Path

from fmmt_deploy.bundle.precisions import precisions_from_option
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli.output import Output
from fmmt_deploy.data.dataset import first_dialogues, read_data
from fmmt_deploy.engines.load import default_threads, open_engines
from fmmt_deploy.engines.protocol import EngineKind, Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.pipeline.noise import Noise, noise_from_option
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import EMOTIONS, DataSet

__all__ = ["Session", "check_needs_data"]


def check_needs_data(data: Path | None, **given: object) -> None:
    """Refuses options that mean nothing without a data set.

    Args:
        data: The data set, if there is one.
        given: Options by name, None where they were not given.

    Raises:
        UsageError: One was given without data.
    """
    asked = [name for name, value in given.items() if value is not None]
    if data is None and asked:
        option = asked[0].replace("_", "-")
        raise UsageError(
            f"--{option} is about a data set, and none is given.", fix=f"Add --data, or leave out --{option}."
        )


class Session:
    """A bundle, checked and open.

    Args:
        shown: Where progress goes.
        path: The bundle.
        threads: To compute with; 0 is as many as there are.
        batch_size: Utterances at a time.
        precision: Which of its graphs, as in `--precision`.
        cache: Where TensorRT's engines are kept; default in the bundle.
    """

    labels = EMOTIONS

    def __init__(
        self,
        shown: Output,
        path: Path,
        threads: int = 0,
        batch_size: int = 8,
        precision: str = "fp32",
        cache: Path | None = None,
    ) -> None:
        self._shown, self.batch_size, self.cache = shown, batch_size, cache
        self.threads = threads or default_threads()
        self.bundle = Bundle.open(path)
        self.architecture = self.bundle.manifest.architecture
        self.precisions = precisions_from_option(precision, self.architecture)

    def dataset(self, data: Path, split: str, faces_dir: Path | None, limit: int | None) -> DataSet:
        """Reads a data set, or its first `limit` dialogues."""
        return first_dialogues(read_data(data, split, self.architecture, faces_dir), limit)

    def noise(self, option: str, seed: int, dataset: DataSet) -> Noise:
        """The noise that `--noise` asks for."""
        return noise_from_option(option, seed, dataset, self.architecture.vision_length)

    def engines(self, kind: EngineKind) -> Engines:
        """Opens the bundle's graphs."""
        if kind == "ort" and {"fp16", "bf16"} & set(self.precisions.values()):
            self._shown.status(
                "ONNX Runtime computes float16 in float32 on a CPU: --engine emulated rounds as a GPU does"
            )
        engines = open_engines(self.bundle, kind, self.precisions, self.threads, self.cache)
        if kind == "ort" and "int8-fp32" in self.precisions.values():
            from fmmt_deploy.engines.ort.load import import_onnxruntime
            from fmmt_deploy.engines.ort.signedness import exact_signedness, explained

            if (found := exact_signedness(import_onnxruntime())) == "unsigned":
                self._shown.status(explained(found))
        return engines

    def reference(self, kind: EngineKind) -> Engines:
        """Opens the bundle's float32 graphs."""
        return open_engines(self.bundle, kind, threads=self.threads)

    def pipeline(self, engines: Engines) -> Pipeline:
        """Batched inference with those engines."""
        return Pipeline(self.bundle, engines, batch_size=self.batch_size, threads=self.threads)

    def answers(self, engines: Engines, dataset: DataSet, noise: Noise) -> list[Prediction]:
        """Runs engines over a data set, with a progress bar; in the data set's order; closes them."""
        with engines, self._shown.progress(f"{engines.kind} engine", len(dataset.order)) as advance:
            answers = {}
            for prediction in self.pipeline(engines).run(dataset, noise):
                answers[prediction.utterance] = prediction
                advance(1)
        return [answers[utterance] for utterance in dataset.order]
