"""Generated Math rows: word problems and expressions with a short numeric answer.

Columns: ``question``, ``answer`` (digits), ``kind`` ("sum", "difference" or "expression").
"""

from __future__ import annotations

import random
from typing import Any

NAMES = (
    "Ada", "Amir", "Anna", "Ben", "Carla", "Chen", "Clara", "David", "Dora", "Elif", "Emil", "Eva",
    "Farah", "Felix", "Gita", "Hana", "Hugo", "Ida", "Igor", "Jana", "Jonas", "Kai", "Kim", "Lara", "Leo",
    "Lin", "Maria", "Max", "Mei", "Nora", "Omar", "Oskar", "Paul", "Petra", "Ravi", "Rosa", "Sam", "Tara",
    "Tom", "Vera", "Yara", "Zoe",
)  # fmt: skip
THINGS = (
    "apples", "bags", "balls", "beads", "books", "boxes", "bricks", "buttons", "cakes", "cards", "chairs",
    "coins", "cups", "dolls", "eggs", "flags", "hats", "keys", "kites", "lamps", "leaves", "maps", "nuts",
    "pears", "pens", "plums", "rings", "seeds", "shells", "stamps", "stones", "toys",
)  # fmt: skip
#: Problems that end with more things than they start with.
GAINS = (
    "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things}. A friend gives {name} {b} more. How many {things} are there?",
    "{name} found {a} {things} on Monday and {b} on Friday. How many {things} in all?",
    "There are {a} {things} on the table. {name} adds {b}. How many {things} are there?",
)
#: Problems that end with fewer things.
LOSSES = (
    "{name} has {a} {things} and sells {b}. How many {things} are left?",
    "{name} had {a} {things} and lost {b}. How many {things} does {name} have now?",
    "There are {a} {things} on the table. {name} takes {b}. How many {things} are left?",
)
_LARGEST = 6


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw one row."""
    kind = rng.choices(("sum", "difference", "expression"), weights=(5, 4, 1))[0]
    if kind == "expression":
        return {**_expression(rng), "kind": kind}
    a, b = rng.randint(1, _LARGEST), rng.randint(1, _LARGEST)
    if kind == "difference":
        a, b = max(a, b), min(a, b)
    template = rng.choice(GAINS if kind == "sum" else LOSSES)
    question = template.format(name=rng.choice(NAMES), things=rng.choice(THINGS), a=a, b=b)
    return {"question": question, "answer": str(a + b if kind == "sum" else a - b), "kind": kind}


def _expression(rng: random.Random) -> dict[str, Any]:
    """Draw two or three terms whose value is not negative, e.g. ``7 + 5 - 2``."""
    terms = [rng.randint(1, _LARGEST) for _ in range(rng.choice((2, 3)))]
    value, text = terms[0], str(terms[0])
    for term in terms[1:]:
        sign = 1 if value < term else rng.choice((1, -1))
        value += sign * term
        text += f" {'+' if sign > 0 else '-'} {term}"
    name = rng.choice(NAMES)
    question = rng.choice(("What is {}?", "Compute {}.", f"{name} writes {{}}. What is its value?")).format(
        text
    )
    return {"question": question, "answer": str(value)}
