"""Randomness as a function of what it is for: the same whatever batch, order, worker, process or resumed run asks.

So a run that is killed and resumed needs no generator's state, and a second process draws what the first would have.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

__all__ = ["generator", "seed_of"]


def seed_of(seed: int, *purpose: str | int) -> int:
    """A number of 63 bits that depends on the seed and each word of the purpose, like `("jitter", 3, "dia0_utt1")`."""
    words = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy's generator (Philox), for `seed_of` the same."""
    return np.random.Generator(np.random.Philox(seed_of(seed, *purpose)))
