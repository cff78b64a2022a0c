"""What a trained model takes from each of its sources: its weighted F1 when one of them is kept from it.

Only what is read changes, never a weight. So this says what this model leans on, not what a model would reach that was
trained without the source; it may find itself in a place that it has never seen. Without

* `text` an utterance has none of its own words (its text mask is 0 throughout);
* `audio` it has no audio (length 0, all rows zero);
* `vision` it has no vision features and no faces (the same);
* `other turns` its own words are all the language model reads: earlier turns are gone, and later ones where the model
  reads those.

Padded rows of zeros stay, for the model attends to them as published. An utterance that has nothing left can't be
asked about: it is left out on both sides of that comparison, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.errors import UsageError
from fmmt_deploy.evaluation.evaluation import checked_labels
from fmmt_deploy.evaluation.scores import confusion_matrix, weighted_f1
from fmmt_deploy.evaluation.significance import Interval, clustered_bootstrap_interval
from fmmt_deploy.pipeline.noise import Noise
from fmmt_deploy.training.settings import NoiseMode
from fmmt_deploy.training.validation import answers, labels_of, noise_of
from fmmt_deploy.types import DataSet, Dialogue, IntArray, TokenizedDialogue, Utterance

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["SOURCES", "Ablation", "Left", "SourceName", "ablate", "without"]

SourceName = Literal["text", "audio", "vision", "other turns"]
SOURCES: tuple[SourceName, ...] = get_args(SourceName)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a model's score without one source.

    Attributes:
        without: The source.
        utterances: That could still be asked about.
        nothing_left: That could not.
        full_f1: Weighted F1 on those utterances with everything, 0 to 1.
        f1: Without the source.
        difference: `f1` less `full_f1`: negative where the source helps.
        interval: Of the difference, over resampled dialogues; None where none could be asked about.
    """

    without: SourceName
    utterances: int
    nothing_left: int
    full_f1: float
    f1: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Ablation:
    """What a model takes from each source.

    Attributes:
        data: The data set, as it names itself.
        noise: On the faces' logits.
        seed: Of that noise.
        utterances: How many there are.
        dialogues: How many they are of.
        full_f1: Weighted F1 with everything, 0 to 1.
        left: One entry a source.
    """

    data: str
    noise: NoiseMode
    seed: int
    utterances: int
    dialogues: int
    full_f1: float
    left: tuple[Left, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return asdict(self)

    def table(self) -> tuple[tuple[str, str, str, str, int], ...]:
        """Rows for people: source, F1, difference, its interval, utterances; scores times 100."""
        rows = [("everything", f"{100 * self.full_f1:.2f}", "", "", self.utterances)]
        for each in self.left:
            span = each.interval
            shown = "" if span is None else f"{100 * span.low:+.2f} to {100 * span.high:+.2f}"
            f1, difference = f"{100 * each.f1:.2f}", f"{100 * each.difference:+.2f}"
            rows.append((f"without {each.without}", f1, difference, shown, each.utterances))
        return tuple(rows)


def ablate(
    model: ReferenceModel,
    tokenizer_json: str | None,
    dataset: DataSet,
    noise: NoiseMode = "none",
    seed: int = 0,
    device: str = "cpu",
) -> Ablation:
    """Asks a model about a data set with everything, and once more without each of its sources.

    Args:
        model: See `fmmt_deploy.training.validation.answers`.
        tokenizer_json: Likewise.
        dataset: Every utterance must have a label.
        noise: On the faces' logits; the same draws each time.
        seed: Of the noise.
        device: As PyTorch names it.

    Raises:
        UsageError: It is a vision-only model, from which nothing can be kept.
        DataError: An utterance has no label, or there is none.
    """
    plm = model.architecture.plm
    if plm is None:
        raise UsageError("A vision-only model has one source: there is nothing to keep from it.", fix="Leave it out.")
    tokenizer = None
    if tokenizer_json is not None:
        tokenizer = DialogueTokenizer(tokenizer_json, plm.kind, plm.max_tokens, model.architecture.context)
    draws = noise_of(noise, seed)
    decided = _decisions(model, tokenizer_json, dataset, draws, device)
    labels = dict(zip(dataset.order, checked_labels(dataset.order, labels_of(dataset)).tolist(), strict=True))
    clusters = {u.id: n for n, dialogue in enumerate(dataset.dialogues) for u in dialogue.utterances}
    left = []
    for source in SOURCES:
        reduced = without(source, dataset, tokenizer)
        again = _decisions(model, tokenizer_json, reduced, draws, device) if reduced.order else {}
        columns = (labels, decided, again, clusters)
        arrays = [np.array([column[u] for u in reduced.order], np.int64) for column in columns]
        left.append(_left(source, len(dataset.order), *arrays))
    truth, full = (np.array([column[u] for u in dataset.order], np.int64) for column in (labels, decided))
    return Ablation(dataset.source, noise, seed, len(truth), len(dataset.dialogues), _f1(truth, full), tuple(left))


def without(source: SourceName, dataset: DataSet, tokenizer: DialogueTokenizer | None) -> DataSet:
    """A data set without one source, and without the utterances that then have nothing left; see the module.

    Args:
        source: Which.
        dataset: It.
        tokenizer: Says which texts have words at all; None where dialogues come tokenised.
    """
    change = _CHANGES[source]
    dialogues = []
    for dialogue in dataset.dialogues:
        for changed in change(dialogue):
            words = _has_words(changed, tokenizer)
            kept = tuple(u for u in changed.utterances if u.audio_length or u.vision_length or words[u.position])
            if kept:
                dialogues.append(replace(changed, utterances=kept))
    asked = {u.id for dialogue in dialogues for u in dialogue.utterances}
    return DataSet(dataset.source, tuple(dialogues), tuple(u for u in dataset.order if u in asked))


def _decisions(
    model: ReferenceModel, tokenizer_json: str | None, dataset: DataSet, noise: Noise, device: str
) -> dict[str, int]:
    logits = answers(model, tokenizer_json, dataset, noise, device)
    return dict(zip(dataset.order, logits.argmax(axis=1).tolist(), strict=True))


def _left(
    source: SourceName, total: int, labels: IntArray, full: IntArray, reduced: IntArray, clusters: IntArray
) -> Left:
    interval = clustered_bootstrap_interval(labels, full, reduced, clusters) if len(labels) else None
    before, after = _f1(labels, full), _f1(labels, reduced)
    return Left(source, len(labels), total - len(labels), before, after, after - before, interval)


def _f1(labels: IntArray, decisions: IntArray) -> float:
    return float(weighted_f1(confusion_matrix(labels, decisions)))


def _has_words(dialogue: Dialogue, tokenizer: DialogueTokenizer | None) -> list[bool]:
    """By turn."""
    if dialogue.tokens is not None:
        return [length > 0 for length in dialogue.tokens.lengths]
    texts = dialogue.texts or ()
    if tokenizer is None:
        return [bool(text.strip()) for text in texts]
    return [tokenizer.encode([text]).lengths[0] > 0 for text in texts]


def _without_text(dialogue: Dialogue) -> tuple[Dialogue, ...]:
    """The turns stay, with no word in them: the tokens of a tokenised dialogue stay too, but none is anyone's own."""
    if dialogue.tokens is not None:
        silent = replace(dialogue.tokens, lengths=(0,) * len(dialogue.tokens.lengths))
        return (replace(dialogue, tokens=silent),)
    return (replace(dialogue, texts=("",) * len(dialogue.texts or ())),)


def _without_rows(modality: Literal["audio", "vision"]) -> Callable[[Dialogue], tuple[Dialogue, ...]]:
    def emptied(utterance: Utterance) -> Utterance:
        if modality == "audio":
            rows = None if utterance.audio is None else np.zeros_like(utterance.audio)
            return replace(utterance, audio=rows, audio_length=0)
        rows = None if utterance.vision is None else np.zeros_like(utterance.vision)
        return replace(utterance, vision=rows, vision_length=0, faces=())

    return lambda dialogue: (replace(dialogue, utterances=tuple(emptied(u) for u in dialogue.utterances)),)


def _without_other_turns(dialogue: Dialogue) -> tuple[Dialogue, ...]:
    """A dialogue for each utterance, with one turn."""

    def alone(utterance: Utterance) -> Dialogue:
        tokens, texts, turn = dialogue.tokens, dialogue.texts, utterance.position
        if tokens is not None:
            start, length = tokens.starts[turn], tokens.lengths[turn]
            ids = np.concatenate(
                [tokens.input_ids[:1], tokens.input_ids[start : start + length], tokens.input_ids[-1:]]
            )
            tokens = TokenizedDialogue(ids, (1,), (length,))
        return Dialogue(
            f"{dialogue.id}/{utterance.id}",
            None if texts is None else (texts[turn],),
            tokens,
            (replace(utterance, position=0),),
        )

    return tuple(alone(utterance) for utterance in dialogue.utterances)


_CHANGES: Mapping[SourceName, Callable[[Dialogue], tuple[Dialogue, ...]]] = {
    "text": _without_text,
    "audio": _without_rows("audio"),
    "vision": _without_rows("vision"),
    "other turns": _without_other_turns,
}
