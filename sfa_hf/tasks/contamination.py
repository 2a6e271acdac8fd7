"""Held-out rows that a model was trained on: whole, or 13 words of them in a row.

Thirteen words are those of GPT-3 (arXiv 2005.14165, appendix C). Text that a task's templates put into every
row does not count. Of generated held-out rows, made of a few patterns, whole ones alone are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sfa_hf.tasks.task import Row, Task
from sfa_hf.tasks.templates import literals

WORDS = 13
_WORD = re.compile(r"\w+")
_Gram = tuple[str, ...]


@dataclass(frozen=True)
class Contamination:
    """How many of a task's held-out rows are among the training rows of a task.

    Attributes:
        task: the task that is scored.
        trained_on: the task whose training rows these are.
        rows: held-out rows that are scored.
        exact: those whose prompt and target are a training row's, up to case, white space and NFKC.
        ngram: those that share 13 words in a row with a training row; those of ``exact`` are among them where
            they have so many words.
    """

    task: str
    trained_on: str
    rows: int
    exact: int
    ngram: int

    def __str__(self) -> str:
        exact, ngram = (f"{count} ({100 * count / self.rows:.1f} %)" for count in (self.exact, self.ngram))
        return (
            f"{self.task}: of {self.rows} held-out rows {exact} are among the training rows of "
            f"{self.trained_on}, {ngram} share {WORDS} words in a row with one"
        )


def contamination(tasks: Sequence[Task], limit: int | None = None) -> list[Contamination]:
    """Every task's held-out rows against every task's training rows.

    Args:
        tasks: of a sequence.
        limit: as for :meth:`sfa_hf.tasks.Task.heldout_rows`.

    Raises:
        ConfigError: rows cannot be had.
    """
    heldout = [_HeldOut(task, task.heldout_rows(limit, few_shot=0)) for task in tasks]
    grams = frozenset().union(*(found for each in heldout for found in each.grams))
    return [
        each.against(trained, seen, shared)
        for trained in tasks
        for seen, shared in [_found(trained, grams)]
        for each in heldout
    ]


class _HeldOut:
    def __init__(self, task: Task, rows: Sequence[Row]) -> None:
        self._task, self._rows = task, rows

    @cached_property
    def grams(self) -> list[set[_Gram]]:
        if all(source.is_generated for source in self._task.config.heldout):
            return [set() for _ in self._rows]
        fixed = _fixed(self._task)
        return [set(_grams(row, fixed)) for row in self._rows]

    def against(self, trained: Task, seen: set[str], shared: set[_Gram]) -> Contamination:
        exact = sum(row.content in seen for row in self._rows)
        ngram = sum(not shared.isdisjoint(found) for found in self.grams)
        return Contamination(self._task.name, trained.name, len(self._rows), exact, ngram)


def _found(trained: Task, grams: frozenset[_Gram]) -> tuple[set[str], set[_Gram]]:
    """What a task's training rows ask, and which of ``grams`` are in them."""
    fixed = _fixed(trained)
    rows = trained.train_rows()
    return {row.content for row in rows}, {
        gram for row in rows for gram in grams.intersection(_grams(row, fixed))
    }


def _grams(row: Row, fixed: re.Pattern[str] | None) -> Iterator[_Gram]:
    text = " ".join(_WORD.findall(f"{row.prompt} {row.target}".casefold()))
    for part in fixed.split(text) if fixed else [text]:
        words = part.split()
        yield from zip(*(words[start:] for start in range(WORDS)), strict=False)


def _fixed(task: Task) -> re.Pattern[str] | None:
    """What a task's templates say between the columns; None: nothing of two words."""
    config, sources = task.config, [*task.config.train, *task.config.heldout]
    templates = [text for source in sources for text in config.templates_of(source) if text]
    texts = {" ".join(_WORD.findall(text.casefold())) for each in templates for text in literals(each)}
    longest = sorted((text for text in texts if " " in text), key=len, reverse=True)
    return re.compile("|".join(rf"\b{text}\b" for text in longest)) if longest else None
