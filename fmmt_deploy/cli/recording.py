"""The receipt that a command leaves in the bundle: when it began, with which settings, and what came of it.

A command makes a `Recording` before it does anything, and writes it before a negative verdict ends it, so that failures
leave receipts, too. What makes a bundle hands `into_new` to what writes it: bundle and receipt then appear together.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import monotonic

import typer

from fmmt_deploy.bundle.disk import check_room
from fmmt_deploy.cli.output import Output, plain_values
from fmmt_deploy.receipts.machine import device_facts, tool_versions
from fmmt_deploy.receipts.record import Hashed, Receipt, Setting
from fmmt_deploy.receipts.store import add_receipt, append_receipt, check_appendable
from fmmt_deploy.receipts.subjects import ELSEWHERE, graph_subjects

if typing.TYPE_CHECKING:
    from fmmt_deploy.bundle.precisions import Precisions
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.engines.tensorrt.cache import EngineFile
    from fmmt_deploy.engines.tensorrt.flavour import FlavourName
    from fmmt_deploy.types import DataSet

__all__ = ["Recording", "data_input", "engine_subjects", "file_input", "graph_subjects", "subjects_of"]

_NOT_SETTINGS = {"as_json", "quiet", "no_receipt", "dry_run", "install_completion", "show_completion"}
"""They change nothing of what is done."""

_ROOM_BYTES = 16 * 2**20
"""More than any receipt takes."""


class Recording:
    """What a receipt will say.

    Args:
        context: The command line, which knows where each setting is from.
        shown: What the command shows.
        bundle: Where the receipt goes, if the bundle is there already.
        wanted: Whether there is to be one: not with --no-receipt or --dry-run.
        making: Whether the bundle is made or replaced; then it need not be writable itself.

    Raises:
        EnvironmentProblem: It could not be written at the end.
    """

    def __init__(self, context: typer.Context, shown: Output, bundle: Path, wanted: bool, making: bool = False) -> None:
        self._shown, self._wanted, self._began = shown, wanted, monotonic()
        self._settings = _settings(context)
        self._typed = (str(bundle), str(bundle.resolve()))
        self.path: str | None = None
        if wanted and not making and bundle.exists():
            check_appendable(bundle)
            check_room(bundle, _ROOM_BYTES)

    def from_recipe(self, recipe: Path, values: Mapping[str, object]) -> None:
        """Says of the settings that a recipe decides that they are from there, unless the command line overrode them.

        Args:
            recipe: Its file.
            values: By the option's name, which may have `_` for `-`.
        """
        for name, value in ((name.replace("_", "-"), value) for name, value in values.items()):
            given = self._settings.get(name)
            if given is None or given.source == "default":
                self._settings[name] = Setting(plain_values(value), f"recipe {recipe.name}")

    def write(
        self,
        bundle: Bundle,
        document: Mapping[str, object],
        *,
        verdict: str = "",
        exit_code: int = 0,
        subjects: Mapping[str, str] | None = None,
        inputs: Mapping[str, Hashed] | None = None,
        outputs: Mapping[str, str] | None = None,
        seeds: Mapping[str, Sequence[int]] | None = None,
    ) -> str | None:
        """Leaves the receipt in the bundle.

        Args:
            bundle: The bundle.
            document: What the command shows with --json.
            verdict: What was found; "" where nothing was judged.
            exit_code: What the command is going to end with.
            subjects: See `Receipt`, as for the next three.
            inputs: What went in.
            outputs: What was made.
            seeds: Of all randomness.

        Returns:
            Its path in the bundle; None where none is wanted.

        Raises:
            EnvironmentProblem: It can't be written.
            BundleError: The bundle was replaced meanwhile.
        """
        if self._wanted:
            receipt = self._receipt(document, verdict, exit_code, subjects, inputs, outputs, seeds)
            self.path = append_receipt(bundle, receipt)
        return self.path

    def into_new(
        self,
        document: Callable[[Bundle], Mapping[str, object]],
        *,
        made: Collection[str] | None = None,
        subjects: Mapping[str, str] | None = None,
        inputs: Mapping[str, Hashed] | None = None,
        seeds: Mapping[str, Sequence[int]] | None = None,
    ) -> Callable[[Path, Bundle], None]:
        """What puts the receipt into a bundle that is being made, for its writer's `commit`.

        Args:
            document: Gives what the command shows with --json.
            made: Which files of the bundle are new; default all. Its manifest is always.
            subjects: See `Receipt`, as for the next two.
            inputs: What went in.
            seeds: Of all randomness.
        """

        def put(directory: Path, bundle: Bundle) -> None:
            if self._wanted:
                outputs = _outputs(directory, bundle, made)
                receipt = self._receipt(document(bundle), "", 0, subjects, inputs, outputs, seeds)
                self.path = add_receipt(directory, receipt)

        return put

    def _receipt(
        self,
        document: Mapping[str, object],
        verdict: str,
        exit_code: int,
        subjects: Mapping[str, str] | None,
        inputs: Mapping[str, Hashed] | None,
        outputs: Mapping[str, str] | None,
        seeds: Mapping[str, Sequence[int]] | None,
    ) -> Receipt:
        from fmmt_deploy.nvidia import nvidia_gpus

        result = {"schema": self._shown.schema, **document}
        return Receipt(
            command=self._shown.command,
            seconds=round(monotonic() - self._began, 3),
            exit_code=exit_code,
            verdict=verdict,
            settings=self._settings,
            inputs=inputs or {},
            subjects=subjects or {},
            outputs=outputs or {},
            tools=tool_versions(),
            device=device_facts([asdict(gpu) for gpu in nvidia_gpus()]),
            seeds={name: tuple(values) for name, values in (seeds or {}).items()},
            result=_as_typed(plain_values(result), *self._typed),
        )


def subjects_of(bundle: Bundle, kind: str, precisions: Precisions, cache: Path | None = None) -> dict[str, str]:
    """What of a bundle an engine in some precisions consists of, with hashes, for `Receipt.subjects`.

    Args:
        bundle: The bundle.
        kind: An `EngineKind`.
        precisions: Of its graphs.
        cache: Where TensorRT's engines are kept; default in the bundle.

    Raises:
        EnvironmentProblem: There is no GPU, or this TensorRT is not installed.
        BundleError: There is no such graph, or no such engine that runs here.
    """
    if kind not in ("trt", "trt-rtx"):
        return graph_subjects(bundle, precisions)
    from fmmt_deploy.engines.tensorrt.load import runnable_engines

    flavour: FlavourName = "trt" if kind == "trt" else "trt-rtx"
    return engine_subjects(bundle, runnable_engines(bundle, flavour, precisions, cache).values())


def engine_subjects(bundle: Bundle, files: Iterable[EngineFile]) -> dict[str, str]:
    """Engines by their plans; one that is kept elsewhere is named `cache:` and its file."""
    found = {}
    for file in files:
        inside = file.path.is_relative_to(bundle.path)
        name = file.path.relative_to(bundle.path).as_posix() if inside else ELSEWHERE + file.path.name
        found[name] = sha256(file.plan).hexdigest()
    return found


def data_input(dataset: DataSet | None, split: str, name: str = "data") -> dict[str, Hashed]:
    """A data set that was read, for `Receipt.inputs`; nothing where there is none.

    Raises:
        DataError: A face's file can't be read.
    """
    from fmmt_deploy.data.fingerprint import fingerprint
    from fmmt_deploy.evaluation.words import counted

    if dataset is None:
        return {}
    utterances, dialogues = counted(len(dataset.order), "utterance"), counted(len(dataset.dialogues), "dialogue")
    about = f"{dataset.source}, {split}: {utterances} of {dialogues}"
    return {name: Hashed(fingerprint(dataset), about)}


def file_input(path: Path | None, about: str) -> dict[str, Hashed]:
    """A file that was read, for `Receipt.inputs`; nothing where there is none."""
    from fmmt_deploy.bundle.integrity import hash_file

    return {} if path is None else {path.name: Hashed(hash_file(path), about)}


def _settings(context: typer.Context) -> dict[str, Setting]:
    """Every option by its name, with where it is from."""
    found = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in _NOT_SETTINGS or name not in context.params:
            continue
        source = context.get_parameter_source(name)
        value = plain_values(context.params[name])
        said = "default" if source is None else source.name.replace("COMMANDLINE", "command line").lower()
        found[max(parameter.opts, key=len).lstrip("-")] = Setting(value, said.replace("_", " "))
    return found


def _outputs(directory: Path, bundle: Bundle, made: Collection[str] | None) -> dict[str, str]:
    from fmmt_deploy.bundle.integrity import hash_file
    from fmmt_deploy.bundle.manifest import MANIFEST_NAME

    files = bundle.manifest.files
    names = list(files if made is None else made)
    listed = {name: files[name].sha256 if name in files else hash_file(directory / name) for name in names}
    return listed | {MANIFEST_NAME: hash_file(directory / MANIFEST_NAME)}


def _as_typed(document: object, typed: str, resolved: str) -> dict[str, object]:
    """Paths as they were given: a bundle travels, and should not tell whose machine it was made on."""

    def shortened(value: object) -> object:
        if isinstance(value, str):
            if value == resolved or value.startswith(f"{resolved}/"):
                return typed + value[len(resolved) :]
            return value
        if isinstance(value, list):
            return [shortened(item) for item in value]
        if isinstance(value, dict):
            return {name: shortened(item) for name, item in value.items()}
        return value

    found = shortened(document)
    assert isinstance(found, dict)
    return found
