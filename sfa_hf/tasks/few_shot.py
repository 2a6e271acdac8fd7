"""Worked examples from the training rows before a held-out prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from sfa_hf.errors import ConfigError


class FewShot(BaseModel):
    """Which examples stand before a held-out prompt.

    Attributes:
        count: how many, drawn from all training rows without replacement; never the row that is asked.
        seed: of the draw.
        separator: behind each example.
        each_row: draw anew for every held-out row; otherwise all rows follow the same examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    count: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    separator: str = "\n\n"
    each_row: bool = False

    def prefix(self, examples: Sequence[str], contents: Sequence[str], index: int, asked: str) -> str:
        """What stands before the prompt of held-out row ``index``.

        The row itself would give its answer away: another example stands in its place.

        Args:
            examples: every training row, prompt and target joined; at least ``count``.
            contents: :attr:`sfa_hf.tasks.Row.content` of each of them.
            index: the held-out row's position.
            asked: that of the held-out row.

        Raises:
            ConfigError: too few training rows are another row.
        """
        rng = random.Random(f"{self.seed}:{index}" if self.each_row else str(self.seed))  # noqa: S311 - reproducible
        drawn = rng.sample(range(len(examples)), self.count)
        if asked in (contents[place] for place in drawn):
            others = (
                place for place in rng.sample(range(len(examples)), len(examples)) if place not in drawn
            )
            free = (place for place in others if contents[place] != asked)
            drawn = [place if contents[place] != asked else next(free, -1) for place in drawn]
        if -1 in drawn:
            problem = f"is {self.count}, and held-out row {index} is itself among the training rows"
            raise ConfigError("few_shot.count", problem, "fewer examples, or more training rows")
        return "".join(examples[place] + self.separator for place in drawn)
