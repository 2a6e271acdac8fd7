"""Distinct generated rows, and the rule that keeps held-out rows out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.generated import code, law, math

#: One content in this many is held out.
_HELD_OUT_ONE_IN = 10
#: Draws in a row without a new content, after which a generator counts as exhausted.
_PATIENCE = 10_000


@dataclass(frozen=True)
class Generator:
    """How to draw a row, and which of its columns is what a model must not have seen."""

    draw: Callable[[random.Random], dict[str, Any]]
    content: str


GENERATORS: dict[str, Generator] = {
    "math": Generator(math.draw, content="question"),
    "law": Generator(law.draw, content="clause"),
    "code": Generator(code.draw, content="english"),
}


def generate(name: str, split: str, rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Draw rows whose contents all differ.

    A content's hash alone decides whether it is "train" or "test", so that no seed and no number of rows can
    make the two overlap.

    Args:
        name: "math", "law" or "code".
        split: "train" or "test".
        rows: how many.
        seed: the same seed gives the same rows; more rows continue the same sequence.

    Raises:
        ConfigError: the generator has no more distinct rows.
    """
    generator, seen, fruitless = GENERATORS[name], set[str](), 0
    rng = random.Random(f"{name}/{split}/{seed}")  # noqa: S311 - reproducible data, not a secret
    while len(seen) < rows:
        row = generator.draw(rng)
        content = row[generator.content]
        if split_of(content) == split and content not in seen:
            seen.add(content)
            fruitless = 0
            yield row
        elif (fruitless := fruitless + 1) > _PATIENCE:
            raise ConfigError(
                f"generated:{name}", f"has no {rows} distinct rows", f"at most about {len(seen)}"
            )


def split_of(content: str) -> str:
    """The split that a content belongs to, whatever the seed."""
    digest = hashlib.sha256(content.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _HELD_OUT_ONE_IN == 0 else "train"
