"""Random generators that do not depend on time, place or order of their use."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4096)
def stable_hash(text: str) -> int:
    """A 64-bit hash of ``text`` that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, *, stream: str, index: int, attempt: int = 0) -> np.random.Generator:
    """The generator of one stream of a sample.

    Streams are independent for different names, indices and attempts: ``SeedSequence`` hashes them as a key. Sums of
    seed and index would collide.

    Args:
        seed: of the mix, 0 <= seed.
        stream: name of the stream, e.g. ``"depth_ordering/train/task"``.
        index: ordinal of the sample within the task, 0 <= index < 2**64.
        attempt: number of rejected attempts before this one, 0 <= attempt < 2**32.
    """
    name = stable_hash(stream)
    words = (name >> 32, name & 0xFFFFFFFF, index >> 32, index & 0xFFFFFFFF, attempt)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=words)))
