"""When two answers are the same number, however they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"))
_BOXED = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_GROUPS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|[ \u202f'])(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_AROUND = "$\u20ac\u00a3\u00a5 *"
_LONGEST = 1000
"""Characters; no answer that is a number has so many."""


def number(text: str, units: Sequence[str] = ()) -> Fraction | None:
    r"""The number that a text is; None if it is anything else.

    Read are ``1,200``, ``1{,}200``, ``.5``, ``5.``, ``1e3``, ``3/4``, ``\frac{3}{4}``, every kind of minus,
    ``\boxed{5}`` and money's signs ($, euro, pound, yen).

    Args:
        text: an answer.
        units: words or signs that may stand before or behind it, in any case: "%", "dollars".
    """
    if len(text) > _LONGEST:
        return None
    plain = text.translate(_MINUS).replace("\\$", "$").replace("\\%", "%").strip()
    if boxed := _BOXED.search(plain):
        plain = boxed[1]
    plain = _without(plain.strip(_AROUND).rstrip("."), units)
    sign = -1 if plain.startswith("-") else 1
    plain = _FRACTION.sub(r"\1/\2", plain.removeprefix("-").removeprefix("+").strip(_AROUND))
    parts = [_GROUPS.sub("", part.strip()) for part in plain.split("/")]
    if len(parts) > 2 or not all(map(_NUMBER.fullmatch, parts)):
        return None
    values = list(map(Fraction, (part.rstrip(".") for part in parts)))
    if len(values) == 1:
        return sign * values[0]
    return sign * values[0] / values[1] if values[1] else None


def _without(text: str, units: Sequence[str]) -> str:
    for unit in sorted(units, key=len, reverse=True):
        one = re.escape(unit)
        text = re.sub(rf"^\s*{one}(?!\w)|(?<![^\W\d_]){one}\s*$", "", text, flags=re.IGNORECASE)
    return text.strip(_AROUND)
