"""Worked examples from the training rows before a held-out prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class FewShot(BaseModel):
    """Which examples stand before a held-out prompt.

    Attributes:
        count: how many, drawn from all training rows without replacement.
        seed: of the draw.
        separator: behind each example.
        each_row: draw anew for every held-out row; otherwise all rows follow the same examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    count: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    separator: str = "\n\n"
    each_row: bool = False

    def prefix(self, examples: Sequence[str], index: int) -> str:
        """What stands before the prompt of held-out row ``index``.

        Args:
            examples: every training row, prompt and target joined; at least ``count``.
            index: the held-out row's position.
        """
        seed = f"{self.seed}:{index}" if self.each_row else str(self.seed)
        drawn = random.Random(seed).sample(range(len(examples)), self.count)  # noqa: S311 - reproducible, not secret
        return "".join(examples[place] + self.separator for place in drawn)
