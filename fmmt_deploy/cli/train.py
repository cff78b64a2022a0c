"""`fmmt train`."""

from __future__ import annotations

import importlib.util
import shlex
import time
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from fmmt_deploy.cli.options import DryRun, FacesDir, Force, JsonOutput, Quiet
from fmmt_deploy.cli.output import Output, Table
from fmmt_deploy.errors import INTERRUPTED, EnvironmentProblem, FmmtError, UnstableError, UsageError

if typing.TYPE_CHECKING:
    from fmmt_deploy.architecture import Architecture
    from fmmt_deploy.training.preparing import Prepared
    from fmmt_deploy.training.recipes import Effective
    from fmmt_deploy.training.run import Outcome
    from fmmt_deploy.training.scoring import SplitScores

__all__ = ["train"]

NEEDED = ("accelerate", "matplotlib", "safetensors", "tensorboardX", "timm", "torch", "transformers")
"""What the extra `train` brings."""

FOR_THE_MAIN_ONE = 30
"""Seconds in which it says what all have found."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]


def train(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="A folder with the published files of train, val and test.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run goes.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The recipe, TOML; with --resume default the run's settings."),
    ] = None,
    aux_data: Annotated[
        Path | None, typer.Option("--aux-data", metavar="DIR", help="Aff-Wild2, on which the Swin trains.")
    ] = None,
    plm_dir: Annotated[
        Path | None,
        typer.Option("--plm-dir", metavar="DIR", help="The language model to begin with; default one in --data."),
    ] = None,
    swin_weights: Annotated[
        Path | None,
        typer.Option("--swin-weights", metavar="FILE", help="What the Swin begins with: Swin_tiny_Ms-Celeb-1M.pt."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights where there are no others.")
    ] = False,
    faces_dir: FacesDir = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Another value than the recipe's.")
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="What computes; auto: a GPU if there is one.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    force: Force = False,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Score the best epoch without text, audio, faces and other turns, too.")
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Trains a model from data to a checkpoint that `fmmt export` takes, with its scores, curves and model card.

    Several GPUs: torchrun --nproc-per-node 4 --no-python fmmt train ...

    Example: fmmt train --config training/roberta.toml --data meld-data --aux-data affwild2 --plm-dir roberta-large
    --swin-weights Swin_tiny_Ms-Celeb-1M.pt -o my-run
    """
    _check_extra()
    from fmmt_deploy.training.preparing import Request, prepare
    from fmmt_deploy.training.run import run_training
    from fmmt_deploy.training.watching import is_main_process

    main = is_main_process()
    shown = Output("train", as_json, quiet or not main)
    with _told_once(main):
        effective = _effective(config, out, resume, changes or [])
        request = Request(
            effective,
            data,
            out,
            aux_data=aux_data,
            plm_dir=plm_dir,
            swin_weights=swin_weights,
            faces_dir=faces_dir,
            from_scratch=from_scratch,
            device=device,
            resume=resume,
            force=force,
            ablate=ablate,
            quiet=quiet,
        )
        prepared = prepare(request, main, shown.status)
    if dry_run:
        if main:
            _show_dry_run(shown, prepared)
        return
    shown.status(str(_settings_table(effective)))
    with _told_once(main, (UsageError, UnstableError)):  # those that all processes raise together
        outcome = run_training(prepared, main, shown.status)
    if outcome is not None:
        _show(shown, outcome, effective)


def _check_extra() -> None:
    from fmmt_deploy.doctor import how_to_install

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"Training needs packages that are not installed: {', '.join(missing)}.", fix=how_to_install("accelerate")
        )


@contextmanager
def _told_once(main: bool, kinds: tuple[type[FmmtError], ...] = (FmmtError,)) -> Iterator[None]:
    """Where several processes fail alike, only the main one says it: of errors of these kinds, and of Ctrl-C.

    The first one that ends has torchrun end the others, so those that are not to speak wait for that; one that is not
    ended has failed alone, and speaks.
    """
    try:
        yield
    except kinds:
        if not main:
            time.sleep(FOR_THE_MAIN_ONE)
        raise
    except KeyboardInterrupt as error:
        if main:
            raise
        raise typer.Exit(INTERRUPTED) from error


def _effective(config: Path | None, out: Path, resume: bool, changes: list[str]) -> Effective:
    from fmmt_deploy.training.folder import SETTINGS, is_training
    from fmmt_deploy.training.recipes import read_effective, resumed_effective

    if config is None and resume and is_training(out):
        return resumed_effective(out / SETTINGS, changes)
    if config is None:
        raise UsageError(
            "There is no recipe to train by.", fix="Give one as --config FILE, such as training/roberta.toml."
        )
    return read_effective(config, changes)


def _settings_table(effective: Effective) -> Table:
    return Table("settings", ("setting", "value", "from"), effective.rows())


def _settings_json(effective: Effective) -> dict[str, object]:
    return {name: {"value": value, "source": source} for name, value, source in effective.rows()}


def _show_dry_run(shown: Output, prepared: Prepared) -> None:
    request, steps = prepared.request, prepared.steps()
    splits = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
    counts = {name: len(split.order) for name, split in splits.items() if split is not None}
    architecture = prepared.start.model.architecture
    parameters = sum(parameter.numel() for parameter in prepared.start.model.parameters())
    document = {
        "dry_run": True,
        "path": request.out,
        "settings": _settings_json(request.effective),
        "architecture": architecture,
        "parameters": parameters,
        "utterances": counts,
        "steps": steps,
        "device": prepared.device,
        "notes": prepared.notes,
    }
    rows = [
        ("model", f"{architecture.modality}, {parameters / 1e6:.1f} M parameters"),
        *_feature_rows(architecture),
        ("device", prepared.device),
        *((f"{name} split", f"{count} utterances") for name, count in counts.items()),
        *((f"{phase} phase", f"{count} steps in all epochs") for phase, count in steps.items()),
    ]
    notes = [f"note: {note}" for note in prepared.notes]
    shown.result(
        document, _settings_table(request.effective), Table(f"would train {request.out}", (), rows), *_lines(notes)
    )


def _feature_rows(architecture: Architecture) -> Iterator[tuple[str, str]]:
    if architecture.fusion is not None:
        yield "audio", f"{architecture.fusion.audio_length} rows of {architecture.fusion.audio_size} numbers"
    sizes = architecture.fusion or architecture.unimodal
    if sizes is not None:
        yield "vision", f"{sizes.vision_length} rows of {sizes.vision_size} numbers"


def _show(shown: Output, outcome: Outcome, effective: Effective) -> None:
    export = shlex.join(["fmmt", "export", "--ckpt", str(outcome.best), "-o", "BUNDLE"])
    document = {"dry_run": False, **outcome.to_json(), "settings": _settings_json(effective), "next": export}
    early = ", stopped early" if outcome.stopped_early else ""
    rows = [
        (split, f"{100 * scores.plain.weighted_f1:.2f}", _noisy(scores), f"{100 * scores.plain.accuracy:.2f}")
        for split, scores in outcome.scores.items()
    ]
    title = f"best epoch: {outcome.best_epoch} of {outcome.epochs}{early}; × 100"
    columns = ("split", "weighted F1", "under Gumbel noise", "accuracy")
    parts = [Table(title, columns, rows)]
    if outcome.ablation is not None:
        heads = ("asked", "weighted F1", "difference", "95 % interval", "utterances")
        parts.append(Table("ablation; × 100", heads, outcome.ablation.table()))
    shown.result(document, *parts, f"wrote {outcome.best}\nnext: {export}")


def _noisy(scores: SplitScores) -> str:
    if scores.gumbel is None:
        return "–"
    f1 = scores.gumbel["weighted_f1"]
    return f"{100 * f1.mean:.2f} ± {100 * f1.deviation:.2f} ({f1.seeds} seeds)"


def _lines(notes: list[str]) -> list[str]:
    return ["\n".join(notes)] if notes else []
