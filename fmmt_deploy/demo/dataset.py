"""Writes the demo's data set in the published formats (reference: MELD's annotation and FacialMMT's features)."""

from __future__ import annotations

import csv
import json
import pickle
import zlib
from pathlib import Path

import numpy as np

from fmmt_deploy.demo.faces import draw_face, write_image
from fmmt_deploy.demo.story import Turn
from fmmt_deploy.types import EMOTIONS, FloatArray, IntArray

__all__ = ["write_split"]

COLUMNS = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
)  # fmt: skip

SENTIMENTS = {"neutral": "neutral", "surprise": "positive", "joy": "positive"}

UNCLEAR = 0.15
"""Share of faces that are blurred."""

APART = 1.2
"""Standard deviation of an emotion's point in every column of features, where a row's own noise has 1."""

POINTS = 20230709
"""What the emotions' points are drawn from: they are the same in every demo, as those of real features are."""


def write_split(
    directory: Path,
    split: str,
    story: list[list[Turn]],
    *,
    audio: tuple[int, int],
    vision: tuple[int, int],
    seed: int,
) -> None:
    """Writes `meld/`, `preprocess_data/` and `faces/` of one split.

    The features of vision-only models have a row for every utterance, also for those without a face.

    Args:
        directory: The data set's folder; face paths are relative to it.
        split: For example `test`.
        story: The dialogues.
        audio: A and the width of audio features.
        vision: V and the width of vision features.
        seed: For the same features again.
    """
    turns = [turn for dialogue in story for turn in dialogue]
    kept = [turn for turn in turns if turn.has_features]
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    both = directory / "preprocess_data" / "T+A+V"
    for folder in (directory / "meld", both, directory / "preprocess_data" / "V", directory / "faces"):
        folder.mkdir(parents=True, exist_ok=True)
    _write_csv(directory / "meld" / f"{split}_sent_emo.csv", turns)
    _write_json(directory / "meld" / f"{split}_text.json", {turn.id: {"txt": [turn.text]} for turn in turns})
    _write_json(both / f"{split}_utt_profile.json", _profiles(story))
    faces = _write_faces(directory, split, kept, rng)
    _write_json(both / f"{split}_facseqs_160_paths_final.json", faces)
    labels = np.array([turn.label for turn in kept])
    voices = np.array([turn.label if turn.voice_tells else 0 for turn in kept])
    sound, mask = _features(voices, rng.integers(4, audio[0] + 1, len(kept)), audio, POINTS, rng)
    _write_pickle(both / f"meld_{split}_audio_utt.pkl", split, audio=sound, audio_utt_mask=mask, labels=labels)
    looks = np.array([turn.label if turn.features_tell else 0 for turn in kept])
    counts = np.array([min(turn.faces, vision[0]) for turn in kept])
    sight, mask = _features(looks, np.maximum(counts, 1), vision, POINTS + 1, rng)
    _write_vision(directory / "preprocess_data" / "V", split, sight, mask, labels)  # reads nothing else: never empty
    found = (counts > 0).astype(np.float32)[:, None]
    _write_vision(both, split, sight * found[..., None], mask * found, labels)


def _write_csv(path: Path, turns: list[Turn]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # with CRLF, as MELD's
        writer.writerow(COLUMNS)
        for number, turn in enumerate(turns, start=1):
            emotion = EMOTIONS[turn.label]
            start, end = (f"0:00:{second % 60:02},000" for second in (3 * number, 3 * number + 2))
            sentiment = SENTIMENTS.get(emotion, "negative")
            ids = (turn.dialogue, turn.utterance, 1, 1)
            writer.writerow([number, turn.text, turn.speaker, emotion, sentiment, *ids, start, end])


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _write_pickle(path: Path, split: str, **arrays: object) -> None:
    path.write_bytes(pickle.dumps({split: arrays}, protocol=4))


def _write_vision(folder: Path, split: str, vision: FloatArray, mask: FloatArray, labels: IntArray) -> None:
    path = folder / f"meld_{split}_vision_utt.pkl"
    _write_pickle(path, split, vision=vision, vision_utt_mask=mask, labels=labels)


def _profiles(story: list[list[Turn]]) -> dict[str, list[str | int]]:
    rows: list[list[str | int]] = [
        [turn.id, f"dia{turn.dialogue}", turn.dialogue, len(dialogue), position]
        for dialogue in story
        for position, turn in enumerate(dialogue)
        if turn.has_features
    ]
    return {str(index): row for index, row in enumerate(rows)}


def _write_faces(directory: Path, split: str, turns: list[Turn], rng: np.random.Generator) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for turn in turns:
        paths[turn.id] = [f"faces/{split}_{turn.id}_{number}.jpg" for number in range(turn.faces)]
        for number, path in enumerate(paths[turn.id]):
            unclear = rng.random() < UNCLEAR and not (turn.images_tell and number == 0)
            write_image(directory / path, draw_face(turn.label if turn.images_tell else 0, rng, unclear))
    return paths


def _features(
    labels: IntArray, lengths: IntArray, size: tuple[int, int], seed: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Rows of noise around one point an emotion, 0 for neutral: (U, rows, columns) and their mask (U, rows)."""
    rows, columns = size
    points = np.random.default_rng(seed).normal(0, APART, (len(EMOTIONS), columns))
    points[0] = 0
    mask = np.arange(rows)[None, :] < lengths[:, None]
    values = (points[labels][:, None] + rng.normal(0, 1, (len(labels), rows, columns))) * mask[..., None]
    return values.astype(np.float32), mask.astype(np.float32)
