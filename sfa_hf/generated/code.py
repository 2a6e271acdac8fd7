"""Generated Code rows: one line of English to one line of Python.

Columns: ``english``, ``code`` (a statement that compiles), ``kind`` (name of its template).
"""

from __future__ import annotations

import random
from typing import Any

VARIABLES = (
    "age", "area", "balance", "best", "cost", "count", "data", "depth", "error", "height", "index", "length",
    "level", "limit", "mass", "name", "number", "offset", "price", "rank", "rate", "result", "score", "size",
    "speed", "start", "step", "time", "total", "value", "weight", "width",
)  # fmt: skip
LISTS = ("files", "items", "keys", "lines", "names", "nodes", "pages", "points", "rows", "users", "words")
LARGEST = 50
_OPERATORS = (("plus", "+"), ("minus", "-"), ("times", "*"), ("divided by", "/"))
_COMPARISONS = (("greater than", ">"), ("less than", "<"), ("equal to", "=="))
#: English and Python of each kind; {w} and {op}, {cw} and {cmp} are the word and the sign of an operator.
TEMPLATES: dict[str, tuple[str, str]] = {
    "assign": ("set {x} to {y} {w} {n}", "{x} = {y} {op} {n}"),
    "combine": ("set {x} to {y} {w} {z}", "{x} = {y} {op} {z}"),
    "increase": ("increase {x} by {y} {w} {n}", "{x} += {y} {op} {n}"),
    "append": ("append {x} {w} {n} to {items}", "{items}.append({x} {op} {n})"),
    "print": ("print {x} {w} {y} and {n}", "print({x} {op} {y}, {n})"),
    "length": ("set {x} to the length of {items} {w} {n}", "{x} = len({items}) {op} {n}"),
    "element": ("set {x} to element {n} of {items} {w} {y}", "{x} = {items}[{n}] {op} {y}"),
    "condition": ("if {x} is {cw} {n} set {y} to {z}", "if {x} {cmp} {n}: {y} = {z}"),
    "loop": ("for each {x} in {items} print {x} {w} {n}", "for {x} in {items}: print({x} {op} {n})"),
}


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw one row."""
    kind = rng.choice(tuple(TEMPLATES))
    x, y, z = rng.sample(VARIABLES, 3)
    (w, op), (cw, cmp) = rng.choice(_OPERATORS), rng.choice(_COMPARISONS)
    slots = {"x": x, "y": y, "z": z, "w": w, "op": op, "cw": cw, "cmp": cmp}
    slots |= {"items": rng.choice(LISTS), "n": str(rng.randint(0, LARGEST))}
    english, code = (text.format(**slots) for text in TEMPLATES[kind])
    return {"english": english, "code": code, "kind": kind}
