"""Random numbers that do not depend on how many processes there are: seeds made of what is drawn for."""

from __future__ import annotations

import hashlib


def seed_from(*key: object) -> int:
    """A seed in [0, 2^63) for a generator of torch, the same for the same key on every process.

    Saved weights and records depend on this derivation. Python's ``random.Random`` takes a text as its seed,
    numpy's ``default_rng`` a sequence of numbers: they need no such function.

    Args:
        key: what tells this draw from every other, e.g. the run's seed, a parameter's name and an offset;
            numbers, texts, and tuples of them, whose ``repr`` is the same everywhere.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
