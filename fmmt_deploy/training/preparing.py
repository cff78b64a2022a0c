"""Everything that a training needs, read and checked before its first step: what can fail fails here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmmt_deploy.bundle.disk import check_room
from fmmt_deploy.data.affwild2 import read_affwild2
from fmmt_deploy.data.dataset import has_split, read_data
from fmmt_deploy.data.sizes import feature_sizes
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.evaluation.evaluation import checked_labels
from fmmt_deploy.reference.folders import find_plm_dir
from fmmt_deploy.training.folder import check_place
from fmmt_deploy.training.recipes import Effective
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.starting import Start, starting_model
from fmmt_deploy.types import DataSet

if TYPE_CHECKING:
    from fmmt_deploy.training.loading import FaceData, TargetData

__all__ = ["Prepared", "Request", "prepare"]

PARAMETER_BYTES = 4 + 2 * 12
"""Of a run on disk, at its largest: the best checkpoint, and two states (weights, two moments), one being written."""

Status = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        effective: The settings.
        data: The data set: a folder with the published files, or with JSONL.
        out: The run's folder.
        aux_data: Aff-Wild2, for the first phase of epochs.
        plm_dir: The language model's folder; default one in `data`.
        swin_weights: The Swin's pre-trained backbone.
        faces_dir: Where face images are, if their paths are of another machine.
        from_scratch: Parts without published weights begin with random ones.
        device: `auto`, `cpu` or `cuda`.
        resume: Go on with what is in `out`.
        force: Replace what is in `out`.
        ablate: Afterwards, what each modality and the other turns are worth.
        quiet: Show no progress.
    """

    effective: Effective
    data: Path
    out: Path
    aux_data: Path | None = None
    plm_dir: Path | None = None
    swin_weights: Path | None = None
    faces_dir: Path | None = None
    from_scratch: bool = False
    device: str = "auto"
    resume: bool = False
    force: bool = False
    ablate: bool = False
    quiet: bool = False

    @property
    def settings(self) -> Settings:
        """All of them."""
        return self.effective.settings

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files and folders that are read."""
        given = (self.data, self.aux_data, self.plm_dir, self.swin_weights, self.faces_dir)
        return tuple(path for path in given if path is not None)


@dataclass(frozen=True)
class Prepared:
    """All that was read.

    Attributes:
        request: What for.
        start: The model to begin with.
        train: What is learnt from.
        val: What the best epoch is chosen by.
        test: What the best epoch is scored on at the end; None if there is none with labels.
        target: Batches of utterances.
        faces: Batches of labelled faces, if an epoch has them.
        device: `cpu` or `cuda`.
        notes: What was skipped, what begins with random weights, and other things to know.
    """

    request: Request
    start: Start
    train: DataSet
    val: DataSet
    test: DataSet | None
    target: TargetData
    faces: FaceData | None
    device: str
    notes: tuple[str, ...]

    def steps(self) -> dict[str, int]:
        """Steps of the whole training, by phase."""
        settings = self.request.settings
        epochs = range(1, settings.target.epochs + 1)
        counted = {"target": sum(self.target.steps(epoch) for epoch in epochs)}
        if self.faces is not None:
            counted["faces"] = sum(self.faces.steps(epoch) for epoch in epochs if epoch <= settings.faces.epochs)
        return counted


def prepare(request: Request, main: bool = True, status: Status = lambda _: None) -> Prepared:
    """Reads and checks everything; writes nothing.

    Args:
        request: What is asked for.
        main: Whether this is the process that writes: the folder is its matter alone.
        status: Is told what is being done.

    Raises:
        FmmtError: Something is missing, damaged, or does not fit; see its kind.
    """
    from fmmt_deploy.training.devices import check_devices
    from fmmt_deploy.training.loading import FaceData, TargetData

    settings = request.settings
    if main:
        check_place(request.out, request.resume, request.force, request.inputs)
    _check_inputs(request)
    device = check_devices(request.device, settings.run.precision)
    status(f"reading {request.data}")
    sizes = feature_sizes(request.data, "train", settings.model.modality)
    start = starting_model(settings, sizes, _plm_dir(request), request.swin_weights, request.from_scratch)
    if main and not request.resume:
        parameters = sum(parameter.numel() for parameter in start.model.parameters())
        check_room(request.out, parameters * PARAMETER_BYTES)
    architecture = start.model.architecture
    train = read_data(request.data, "train", architecture, request.faces_dir)
    val = read_data(request.data, "val", architecture, request.faces_dir)
    _check_labels(val)
    test, told = _test_split(request, start)
    target = TargetData(train, architecture, start.tokenizer_json, settings)
    faces = None
    if request.aux_data is not None:
        status(f"reading {request.aux_data}")
        faces = FaceData(read_affwild2(request.aux_data, "train"), settings)
    notes = (*start.notes, *target.notes, *(() if faces is None else faces.notes), *told)
    return Prepared(request, start, train, val, test, target, faces, device, notes)


def _check_inputs(request: Request) -> None:
    epochs = request.settings.faces.epochs
    if not request.data.is_dir():
        raise DataError(
            f"{request.data} is no folder.",
            why="A training reads several splits: train, val, and test if there is one.",
            fix="Give the folder that holds the data set's files as --data.",
            path=request.data,
        )
    if epochs and request.aux_data is None:
        raise UsageError(
            "Epochs begin with a phase that trains the Swin on labelled faces, and none are given.",
            why="They are Aff-Wild2's, which its authors give to researchers on request.",
            fix="Give its folder as --aux-data DIR, or leave the phase out: --set faces.epochs=0.",
        )
    if request.ablate and request.settings.model.modality == "V":
        raise UsageError("A vision-only model has one source: there is nothing to ablate.", fix="Leave out --ablate.")
    if not epochs and request.aux_data is not None:
        raise UsageError(
            "--aux-data is given, but no epoch trains on it.",
            fix="Leave it out, or set faces.epochs above 0.",
        )


def _plm_dir(request: Request) -> Path | None:
    if request.plm_dir is None and request.settings.model.modality == "T+A+V":
        return find_plm_dir(request.data)
    return request.plm_dir


def _check_labels(dataset: DataSet) -> None:
    known = {u.id: u.label for dialogue in dataset.dialogues for u in dialogue.utterances}
    checked_labels(dataset.order, [known[utterance] for utterance in dataset.order])


def _test_split(request: Request, start: Start) -> tuple[DataSet | None, tuple[str, ...]]:
    architecture = start.model.architecture
    if not has_split(request.data, "test", architecture):
        return None, (f"{request.data} has no test split: only the validation split is scored.",)
    test = read_data(request.data, "test", architecture, request.faces_dir)
    if any(u.label is None for dialogue in test.dialogues for u in dialogue.utterances):
        return None, ("The test split has utterances without labels, so it is not scored.",)
    return test, ()
