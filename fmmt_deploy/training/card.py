"""The model card of a run: a template, `model_card.md`, filled from the run's own facts.

Its form is that of Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from fmmt_deploy.reference.folders import BEST
from fmmt_deploy.training.card_facts import CardFacts
from fmmt_deploy.training.folder import write_text
from fmmt_deploy.training.scoring import SplitScores
from fmmt_deploy.types import EMOTIONS

__all__ = ["CARD", "card_of", "write_card"]

CARD = "model-card.md"

_FEW = 100
"""Utterances of an emotion to learn it from."""

_KINDS = {
    "T+A+V": "A multimodal model: a language model ({plm}) reads {turns}, a Swin transformer sees the faces, and "
    "cross-modal encoders join them with audio and vision features.",
    "V": "A model of one modality: a transformer over the vision features of an utterance.",
}
_TURNS = {
    "dialogue": "the whole conversation, also what is said later",
    "past": "the conversation up to the utterance, so that it can answer live",
}


def write_card(folder: Path, facts: CardFacts) -> None:
    """Writes a run's model card into its folder, and beside the checkpoint in `best/`.

    Raises:
        EnvironmentProblem: It can't be written; one that is there stays as it is.
    """
    text = card_of(facts)
    for directory in (folder, folder / BEST):
        if directory.is_dir():
            write_text(directory / CARD, text)


def card_of(facts: CardFacts) -> str:
    """The card's text."""
    template = files("fmmt_deploy.training").joinpath("model_card.md").read_text(encoding="utf-8")
    architecture = facts.architecture
    multimodal = architecture.plm is not None
    kind = _KINDS[architecture.modality]
    return Template(template).substitute(
        name=_plain(facts.name),
        day=facts.day.isoformat(),
        kind=kind.format(plm=architecture.plm.kind, turns=_TURNS[architecture.context]) if architecture.plm else kind,
        emotions=", ".join(EMOTIONS),
        sizes=_table(("part", "parameters"), [(part, f"{count:,}") for part, count in facts.parameters.items()]),
        tau=facts.tau,
        threshold=facts.threshold,
        checkpoint=facts.checkpoint,
        language=", and text in the language it learnt" if multimodal else "",
        noise=_noise(facts.scores.values()),
        data=_data(facts),
        source=_plain(facts.source),
        notes=_listed("Left out, and other things to know:", facts.notes),
        training=_training(facts),
        starting="\n".join(f"* `{name}`, SHA-256 `{digest}`" for name, digest in facts.starting.items())
        or "Nothing: every part began with random weights.",
        settings=_table(("setting", "value", "from"), [tuple(map(_plain, row)) for row in facts.settings]),
        results="\n\n".join(_result(split, scores) for split, scores in facts.scores.items()),
        ablation=_ablation(facts),
        caveats=_caveats(facts),
    )


def _noise(scores: Iterable[SplitScores]) -> str:
    if all(each.gumbel is None for each in scores):
        return "There is no randomness in its answers."
    return (
        "The published model draws Gumbel noise on its faces' logits, also when it answers; its figures are one draw. "
        "Here they are given without noise, as the model is served, and as mean and standard deviation over seeds."
    )


def _data(facts: CardFacts) -> str:
    rows = [
        (
            each.name,
            "–" if each.dialogues is None else f"{each.dialogues:,}",
            f"{each.cases:,}",
            *(f"{count:,}" for count in each.counts),
            f"`{each.digest[:16]}…`" if each.digest else "–",
        )
        for each in facts.data
    ]
    return _table(("split", "dialogues", "cases", *EMOTIONS, "digest"), rows)


def _training(facts: CardFacts) -> str:
    machine = facts.machine
    early = ", then stopped because none was better" if facts.stopped_early else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    epochs = "1 epoch" if facts.epochs == 1 else f"{facts.epochs} epochs"
    processes = "one process" if machine.processes == 1 else f"{machine.processes} processes"
    return (
        f"{epochs}{early}; epoch {facts.best_epoch} was the best on the validation split and is this "
        f"model. It took {_duration(facts.seconds)}, in {processes} on {_plain(machine.device)} ({machine.system}; "
        f"{versions})."
    )


def _result(split: str, scores: SplitScores) -> str:
    """A split's scores by emotion, and over seeds of noise."""
    plain, noisy = scores.plain, scores.gumbel
    seeds = next(iter(noisy.values())).seeds if noisy else 0
    rows: list[tuple[str, ...]] = []
    for each in plain.classes:
        under = _spread(scores, f"f1/{each.emotion}")
        rows.append((each.emotion, *_hundred(each.precision, each.recall, each.f1), under, str(each.support)))
    for name, value in (("weighted F1", plain.weighted_f1), ("macro F1", plain.macro_f1), ("accuracy", plain.accuracy)):
        under = _spread(scores, name.replace(" ", "_").lower())
        rows.append((f"**{name}**", "", "", f"**{100 * value:.2f}**", under, str(len(plain.utterances))))
    head = ("emotion", "precision", "recall", "F1", f"under noise ({seeds} seeds)" if seeds else "under noise", "cases")
    confusion = [(name, *map(str, row)) for name, row in zip(EMOTIONS, plain.confusion, strict=True)]
    return (
        f"### {split} split\n\n{_table(head, rows)}\n\n"
        f"Decisions (rows: truth, columns: decision):\n\n{_table(('', *EMOTIONS), confusion)}"
    )


def _spread(scores: SplitScores, name: str) -> str:
    if scores.gumbel is None:
        return "–"
    spread = scores.gumbel[name]
    return f"{100 * spread.mean:.2f} ± {100 * spread.deviation:.2f}"


def _ablation(facts: CardFacts) -> str:
    if facts.ablation is None:
        return "Not measured in this run (`fmmt train --ablate` does)."
    found = facts.ablation
    lost = [f"{each.nothing_left} utterances without {each.without}" for each in found.left if each.nothing_left]
    rows = [tuple(map(str, row)) for row in found.table()]
    noise = "without noise" if found.noise == "none" else f"under Gumbel noise, seed {found.seed}"
    return (
        f"Weighted F1 when one source is kept from this model as it answers ({_plain(Path(found.data).name)}, {noise}; "
        "95 % intervals of the difference over resampled dialogues). It shows what this model leans on, not what one "
        f"trained without the source would reach.\n\n{_table(('', 'F1', 'difference', 'interval', 'cases'), rows)}"
        + (f"\n\nLeft out on both sides, because nothing was left of them: {', '.join(lost)}." if lost else "")
    )


def _caveats(facts: CardFacts) -> str:
    lines = [
        "Figures on other data will be lower: score it on labelled data of the place where it is to be used.",
        "The best epoch was chosen on the validation split, so that its scores there are too good by a little.",
    ]
    if "test" not in facts.scores:
        lines.append("There was no labelled test split: nothing here is a score on data that no choice was made on.")
    if facts.architecture.plm is not None and facts.architecture.context == "dialogue":
        lines.append("It reads later turns too: answered live, without them, it is not the model that was scored here.")
    rare = [f"{name} ({n})" for name, n in zip(EMOTIONS, facts.data[0].counts, strict=True) if n < _FEW]
    if rare:
        lines.append(f"It learnt from few cases of some emotions: {', '.join(rare)}.")
    return "\n".join(f"* {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(head: str, items: Sequence[str]) -> str:
    if not items:
        return "Nothing was left out."
    return "\n".join([head, "", *(f"* {_plain(item)}" for item in items)])


def _plain(text: str) -> str:
    """Without what Markdown would take for its own, and with only the last part of a whole path."""
    named = re.sub(r"(?<![\w.])/(?:[^\s/:,;]+/)+([^\s/:,;]+)", r"\1", " ".join(text.split()))
    return re.sub(r"([\\`<|])", r"\\\1", named)


def _hundred(*values: float) -> tuple[str, ...]:
    return tuple(f"{100 * value:.2f}" for value in values)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
