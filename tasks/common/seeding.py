"""Seeds derived by hashing, so that a new consumer of randomness shifts nobody else's stream."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from a path of names and numbers, e.g. `derive_seed("learner", "bc", 3)`.

    Different paths give independent seeds; the value is the same on every machine and Python version.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(*parts: str | int) -> np.random.Generator:
    """A numpy generator for a path of names and numbers (Philox, so streams are independent)."""
    return np.random.Generator(np.random.Philox(derive_seed(*parts)))
