"""Generated plain text that a built-in model reads before any task: no task's prompt, no held-out clause or line.

Stories with numbers in them, sums in words and in figures, contract clauses and Python lines, each on its own.
It gives the base words, number facts and syntax; what it lacks is every task's question and form of answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from sfa_hf.tasks.generated import GENERATORS, code, generate, law, math, split_of

_VERBS = ("bought", "carried", "counted", "found", "hid", "kept", "lost", "moved", "painted", "sold", "took")
_PLACES = ("at home", "at school", "at the market", "by the river", "in the garden", "in town", "on the hill")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def documents(count: int, seed: int) -> list[str]:
    """So many texts of a line or a few, the same for the same seed."""
    rng = random.Random(f"text/{seed}")  # noqa: S311 - reproducible data, not a secret
    return [rng.choices(_WRITERS, weights=_WEIGHTS)[0](rng) for _ in range(count)]


def task_words(count: int, seed: int) -> list[str]:
    """Training rows' prompts, for the tokenizer alone: words that only tasks use shall be one token too."""
    rows = [(name, row) for name in GENERATORS for row in generate(name, "train", count // 3, seed)]
    return [f"{row[GENERATORS[name].content]} {row.get('question', '')}\nAnswer: Python:" for name, row in rows]


def _story(rng: random.Random) -> str:
    sentences = []
    for name in rng.sample(math.NAMES, rng.randint(1, 2)):
        place, day = rng.choice(_PLACES), rng.choice(_DAYS)
        thing, number = rng.choice(math.THINGS), rng.randint(1, 18)
        sentences.append(f"On {day} {name} {rng.choice(_VERBS)} {number} {thing} {place}.")
    return " ".join(sentences)


def _sums(rng: random.Random) -> str:
    """A few number facts, each in one of the ways people write them."""
    facts = []
    for _ in range(rng.randint(2, 4)):
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        high, low = max(a, b), min(a, b)
        facts.append(
            rng.choice(
                (
                    f"{a} plus {b} is {a + b}.",
                    f"{a} + {b} = {a + b}.",
                    f"{high} minus {low} is {high - low}.",
                    f"{high} - {low} = {high - low}.",
                    f"{a} and {b} more make {a + b}.",
                    f"{low} taken from {high} leaves {high - low}.",
                )
            )
        )
    return " ".join(facts)


def _clause(rng: random.Random) -> str:
    return _unseen(rng, lambda: str(law.draw(rng)["clause"]))


def _program(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(1, 3)):
        row = code.draw(rng)
        if split_of(row["english"]) == "train":
            lines.append(str(row["code"]))
    return "\n".join(lines) or "pass"


def _unseen(rng: random.Random, draw: Callable[[], str]) -> str:
    text = draw()
    while split_of(text) != "train":
        text = draw()
    return text


_WRITERS = (_story, _sums, _clause, _program)
_WEIGHTS = (2, 3, 2, 2)
