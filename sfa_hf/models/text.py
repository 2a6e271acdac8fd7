"""Generated plain text for the pre-training of a built-in model, without prompts and held-out contents.

Stories with numbers, sums in words and in digits, contract clauses under headings, Python lines with and
without comments. As with a real base model, the text holds what the tasks need in other words, but not their
questions and forms of answer.
"""

from __future__ import annotations

import random

from sfa_hf.generated import GENERATORS, code, generate, law, math, split_of

_VERBS = ("bought", "carried", "counted", "found", "hid", "kept", "lost", "moved", "painted", "sold", "took")
_PLACES = ("at home", "at school", "at the market", "by the river", "in the garden", "in town", "on the hill")
_GAINS = ("{name} bought {change} more", "Then {name} found {change}", "A friend gave {name} {change}")
_LOSSES = ("{name} sold {change}", "Then {name} lost {change}", "A friend took {change} from {name}")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def documents(count: int, seed: int) -> list[str]:
    """Return ``count`` texts of one or a few lines, the same for the same seed."""
    rng = random.Random(f"text/{seed}")  # noqa: S311 - reproducible data, not a secret
    return [rng.choices(_WRITERS, weights=_WEIGHTS)[0](rng) for _ in range(count)]


def task_words(count: int, seed: int) -> list[str]:
    """Return prompts of training rows, only for the tokenizer: words of tasks become single tokens too."""
    rows = [(name, row) for name in GENERATORS for row in generate(name, "train", count // 3, seed)]
    return [
        f"{row[GENERATORS[name].content]} {row.get('question', '')}\nAnswer: Label: Python:"
        for name, row in rows
    ]


def _story(rng: random.Random) -> str:
    name, thing, number = rng.choice(math.NAMES), rng.choice(math.THINGS), rng.randint(1, 18)
    place, day = rng.choice(_PLACES), rng.choice(_DAYS)
    return f"On {day} {name} {rng.choice(_VERBS)} {number} {thing} {place}."


def _account(rng: random.Random) -> str:
    """Count things, change their number, and count them again."""
    name, thing = rng.choice(math.NAMES), rng.choice(math.THINGS)
    before, change = rng.randint(1, 9), rng.randint(1, 9)
    if rng.random() < 0.5:
        after, what = before + change, rng.choice(_GAINS)
    else:
        before, change = max(before, change), min(before, change)
        after, what = before - change, rng.choice(_LOSSES)
    story = what.format(name=name, change=change)
    return f"{name} had {before} {thing}. {story}. After that {name} had {after}."


def _sums(rng: random.Random) -> str:
    """Write a few sums, each in one of the usual forms."""
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
    """Write a clause under its heading, as in a contract."""
    row = law.draw(rng)
    if split_of(row["clause"]) != "train":
        return _clause(rng)
    return f"{row['category']}. {row['clause']}"


def _commented(rng: random.Random) -> str:
    """Write lines of Python, each with a comment above it."""
    rows = [row for row in (code.draw(rng) for _ in range(3)) if split_of(row["english"]) == "train"]
    return "\n".join(f"# {row['english']}\n{row['code']}" for row in rows)


def _program(rng: random.Random) -> str:
    """Write lines of Python that use the same names."""
    x, y = rng.sample(code.VARIABLES, 2)
    items, sign, number = rng.choice(code.LISTS), rng.choice("+-*/"), rng.randint(0, code.LARGEST)
    lines = (
        f"{x} = {number}",
        f"{y} = {x} {sign} {number}",
        f"{items}.append({y})",
        f"print({x} {sign} {y})",
        f"{x} = len({items})",
        f"if {y} > {number}: {x} = {y}",
        f"for {x} in {items}: print({x})",
        f"{y} += {x}",
    )
    return "\n".join(rng.sample(lines, rng.randint(3, 4)))


_WRITERS = (_story, _account, _sums, _clause, _program, _commented)
_WEIGHTS = (1, 6, 2, 2, 1, 3)
