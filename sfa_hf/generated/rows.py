"""Distinct generated rows, split into training rows and held-out rows."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.generated import code, law, math

#: One of this many contents is held out.
_HELD_OUT_ONE_IN = 10
#: A generator counts as exhausted after this many draws without a new content.
_PATIENCE = 10_000


@dataclass(frozen=True)
class Generator:
    """Draws rows.

    Attributes:
        draw: draws one row.
        content: name of the column that must differ between training and held-out rows.
    """

    draw: Callable[[random.Random], dict[str, Any]]
    content: str


GENERATORS: dict[str, Generator] = {
    "math": Generator(math.draw, content="question"),
    "law": Generator(law.draw, content="clause"),
    "code": Generator(code.draw, content="english"),
}


def generate(name: str, split: str, rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Draw rows whose contents all differ.

    The hash of a content decides whether it is "train" or "test". The two never overlap, whatever the seed
    and the number of rows.

    Args:
        name: "math", "law" or "code".
        split: "train" or "test".
        rows: number of rows, >= 0.
        seed: seed of the rows; with more rows, the sequence of the same seed continues.

    Raises:
        ConfigError: the generator has too few distinct rows.
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
    """Return the split of a content, "train" or "test"."""
    digest = hashlib.sha256(content.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _HELD_OUT_ONE_IN == 0 else "train"
