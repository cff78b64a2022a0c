"""From lengths to optimisation profiles, and what they and other choices waste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.engines.tensorrt.profiles import TOKEN_MULTIPLE, Profile, Profiles, Range
from fmmt_deploy.errors import UsageError
from fmmt_deploy.shapes.lengths import Lengths, distribution
from fmmt_deploy.shapes.padding import Padding, batched, best_buckets, bucketed, stepped
from fmmt_deploy.types import GraphName

__all__ = ["BATCHES", "check_padded_axes", "face_chunks", "face_paddings", "profiles_from_lengths", "text_paddings"]

BATCHES = (4, 8, 16, 32)
BUCKETS = (1, 2, 3, 4, 6, 8)
STEPS = (32, 64)

_WHY: Mapping[str, str] = {
    "audio": "The other modalities attend to its padded rows too, as when the model was trained",
    "vision": "The other modalities attend to its padded rows too, as when the model was trained",
    "text": "The other modalities attend to the padded rows of an utterance's words too, as when the model was trained",
}


def check_padded_axes(architecture: Architecture, wanted: Mapping[str, int | None]) -> None:
    """Refuses another length for an axis whose padding is part of the arithmetic.

    Args:
        architecture: The model, whose own lengths are no change.
        wanted: For `audio`, `vision` or `text` the positions asked for, or None.

    Raises:
        UsageError: One is asked for that is not the model's.
    """
    sizes = architecture.fusion
    own = {
        "audio": sizes.audio_length if sizes else None,
        "vision": architecture.vision_length,
        "text": sizes.text_length if sizes else None,
    }
    for name, positions in wanted.items():
        if positions is None or positions == own[name]:
            continue
        if own[name] is None:
            raise UsageError(f"--{name} {positions}: this model reads no {name}.", fix="Leave it out.")
        raise UsageError(
            f"--{name} {positions}: {name} keeps its {own[name]} positions, however short the data are.",
            why=f"{_WHY[name]}, so another length would be another answer (docs/numerics.md).",
            fix="Leave it out. What may vary are tokens, dialogues, utterances and faces.",
        )


def profiles_from_lengths(
    lengths: Lengths, architecture: Architecture, buckets: int, face_batch: int, source: str
) -> Profiles:
    """Profiles that accept whatever the pipeline may run with that batch size, and are fastest at what the data hold.

    With buckets, the first profile ends at the first bucket's edge, and so on; the last goes up to the longest that the
    model takes, since other data may hold longer texts than these.

    Args:
        lengths: Of the data.
        architecture: The model's.
        buckets: Profiles of `swin` and `plm`, if there are so many distinct lengths.
        face_batch: Faces that go through `swin` together.
        source: Where the lengths are from.
    """
    most = lengths.batch_size
    utterances = Range(1, distribution("", lengths.utterances).p50, most)
    if architecture.plm is None or architecture.fusion is None:
        return Profiles(source, {"unimodal": ({"utterances": utterances},)})
    longest = architecture.plm.max_tokens
    groups = _groups_run(lengths, longest)
    usual = distribution("", [tokens for _, tokens in groups]).p50
    dialogues = Range(1, distribution("", [d for d, _ in groups]).p50, most)
    packed = most * architecture.vision_length
    faces = max(1, distribution("", lengths.step_faces).p50)
    edges = _group_edges(groups, buckets)
    fusion: Profile = {
        "utterances": utterances,
        "dialogues": dialogues,
        "tokens": Range(min(2, longest), max(2, usual), longest),
        "faces": Range(1, faces, packed),
    }
    graphs: dict[GraphName, tuple[Profile, ...]] = {
        "swin": tuple({"faces": faces} for faces in _ranges(_face_edges(lengths, buckets, face_batch), 1, face_batch)),
        "plm": tuple({"dialogues": dialogues, "tokens": tokens} for tokens in _ranges(edges, min(2, longest), longest)),
        "fusion": (fusion,),
    }
    return Profiles(source, graphs)


def text_paddings(lengths: Lengths, architecture: Architecture, buckets: int) -> list[Padding]:
    """Tokens that each choice computes: as the pipeline groups, in other batches, in buckets one text at a time."""
    if architecture.plm is None or not lengths.texts:
        return []
    groups = _groups_run(lengths, architecture.plm.max_tokens)
    tokens, weights = [t for _, t in groups], [d for d, _ in groups]
    real = sum(lengths.texts)
    grouped, padded = (sum(t * d for d, t in each) for each in (lengths.groups, groups))
    chosen = bucketed(tokens, _group_edges(groups, buckets), weights)
    counts = sorted({*BUCKETS, buckets})
    return [
        Padding(f"as `fmmt run` groups them, {lengths.batch_size} utterances", real, grouped),
        Padding(f"the same, padded to multiples of {TOKEN_MULTIPLE}, as TensorRT's engines run them", real, padded),
        Padding(f"the same, padded to {chosen.choice}", real, chosen.processed),
        *(batched(lengths.texts, batch, in_order=True) for batch in BATCHES),
        *(batched(lengths.texts, batch, in_order=False) for batch in BATCHES),
        *(stepped(lengths.texts, step) for step in STEPS),
        *_distinct([bucketed(lengths.texts, best_buckets(lengths.texts, count)) for count in counts]),
    ]


def face_paddings(lengths: Lengths, buckets: int, face_batch: int) -> list[Padding]:
    """Faces that each choice computes; nothing is padded but where an engine takes certain numbers of faces only."""
    chunks = face_chunks(lengths, face_batch)
    if not chunks:
        return []
    counts = sorted({*BUCKETS, buckets})
    return [
        Padding("packed, any number", sum(chunks), sum(chunks)),
        *_distinct([bucketed(chunks, best_buckets(chunks, count)) for count in counts]),
    ]


def face_chunks(lengths: Lengths, face_batch: int) -> list[int]:
    """Faces of every run of `swin`."""
    full = [face_batch for faces in lengths.step_faces for _ in range(faces // face_batch)]
    return full + [faces % face_batch for faces in lengths.step_faces if faces % face_batch]


def _groups_run(lengths: Lengths, longest: int) -> list[tuple[int, int]]:
    """Dialogues and tokens of each group as TensorRT's engines get it: see `TOKEN_MULTIPLE`."""
    return [(d, min(-(-t // TOKEN_MULTIPLE) * TOKEN_MULTIPLE, longest)) for d, t in lengths.groups]


def _group_edges(groups: Sequence[tuple[int, int]], buckets: int) -> tuple[int, ...]:
    return best_buckets([t for _, t in groups], buckets, [d for d, _ in groups])


def _face_edges(lengths: Lengths, buckets: int, face_batch: int) -> tuple[int, ...]:
    chunks = face_chunks(lengths, face_batch)
    return best_buckets(chunks, buckets) if chunks else (1,)


def _ranges(edges: Sequence[int], smallest: int, largest: int) -> list[Range]:
    """From bucket to bucket, each fastest at its edge, to which what is shorter is padded, or nearly is."""
    starts = [smallest, *(edge + 1 for edge in edges[:-1])]
    ends = [*edges[:-1], largest]
    assert all(a < b for a, b in pairwise(starts))
    return [Range(start, max(start, edge), end) for start, edge, end in zip(starts, edges, ends, strict=True)]


def _distinct(paddings: list[Padding]) -> list[Padding]:
    """Without those that found no more buckets to make."""
    return list({padding.choice: padding for padding in paddings}.values())
