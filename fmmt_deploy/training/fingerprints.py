"""Fingerprints of what a training reads: by them a run is resumed with the same data only."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from fmmt_deploy.types import Dialogue

__all__ = ["fingerprint_of_dialogues", "fingerprint_of_text"]

_BYTES = 16


def fingerprint_of_dialogues(dialogues: Iterable[Dialogue]) -> str:
    """Differs where the data do: ids, words, labels, and each utterance's numbers of rows and first ones."""
    digest = blake2b(digest_size=_BYTES)
    for dialogue in dialogues:
        digest.update(repr((dialogue.id, dialogue.texts)).encode(errors="surrogatepass"))
        if dialogue.tokens is not None:
            digest.update(dialogue.tokens.input_ids.tobytes())
        for u in dialogue.utterances:
            digest.update(repr((u.id, u.position, u.label, len(u.faces), u.audio_length, u.vision_length)).encode())
            for features in (u.audio, u.vision):
                digest.update(b"" if features is None else features[:1].tobytes())
    return digest.hexdigest()


def fingerprint_of_text(text: str) -> str:
    """Differs where the text does."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=_BYTES).hexdigest()
