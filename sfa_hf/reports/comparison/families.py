"""Methods that differ only in options, as lines along one option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

from sfa_hf.reports.comparison.view import Comparison, Method

SYMBOLS = {"alpha": "\N{GREEK SMALL LETTER ALPHA}", "beta": "\N{GREEK SMALL LETTER BETA}"}
SYMBOLS |= dict.fromkeys(("lam", "lambda", "lambda_"), "\N{GREEK SMALL LETTER LAMDA}")


@dataclass(frozen=True)
class Line:
    """Methods that differ in one option.

    Attributes:
        title: label of its methods without the option that varies; if these differ, the name of the method
            and the options that distinguish the line from others.
        option: option that varies along the line.
        methods: the methods, by rising value of the option.
        others: values of the options that distinguish it from other lines of the family.
    """

    title: str
    option: str
    methods: list[Method]
    others: dict[str, float]


@dataclass(frozen=True)
class Family:
    """Entries of one method that differ only in numbers.

    Attributes:
        title: name of the method, with the options that distinguish it from its other families.
        varying: options that differ between the entries, in the order of the method.
        methods: the entries.
    """

    title: str
    varying: list[str]
    methods: list[Method]

    @property
    def strength(self) -> str:
        """The first varying option; beta for SFA."""
        return self.varying[0]

    @property
    def second(self) -> str:
        """The second varying option, or the first if there is only one; p for SFA."""
        return self.varying[-1] if len(self.varying) < 2 else self.varying[1]

    def lines(self, along: str) -> list[Line]:
        """Return the lines along an option, one for each combination of the others."""
        others = [option for option in self.varying if option != along]
        groups: dict[tuple[float, ...], list[Method]] = {}
        for method in sorted(self.methods, key=lambda each: float(each.options[along])):
            groups.setdefault(tuple(float(method.options[option]) for option in others), []).append(method)
        return [self._line(along, dict(zip(others, key, strict=True)), groups[key]) for key in sorted(groups)]

    def _line(self, along: str, others: dict[str, float], methods: list[Method]) -> Line:
        labels = {_without(along, method) for method in methods}
        words = [f"{symbol(option)}={value:g}" for option, value in others.items()]
        title = labels.pop() if len(labels) == 1 else " ".join([self.title, *words])
        return Line(title, along, methods, others)


def families(comparison: Comparison) -> list[Family]:
    """Return the families: methods with several values of an option that is a number."""
    groups: dict[str, list[Method]] = {}
    for method in comparison.methods:
        # the options that are no numbers, None among them, are what a family has in common
        words = {key: value for key, value in method.options.items() if not _is_number(value)}
        groups.setdefault(repr(words), []).append(method)
    found = []
    for methods in groups.values():
        first = methods[0]
        varying = [key for key in first.options if len({repr(each.options[key]) for each in methods}) > 1]
        if varying:
            title = " ".join([first.name, *_apart(first, varying, comparison)])
            found.append(Family(title, varying, methods))
    return found


def _without(option: str, method: Method) -> str:
    """Return the label of a method without an option, as sfa_hf/comparison/entries.py writes it."""
    value = float(method.options[option])
    text = f"{value:.17g}" if value.is_integer() else str(value)
    return method.label.replace(f"-{option}{text}", "", 1)


def _apart(method: Method, varying: list[str], comparison: Comparison) -> Iterator[str]:
    """Yield the options of the family that other entries of the same method do not have."""
    namesakes = [each.options for each in comparison.methods if each.name == method.name]
    for key, value in method.options.items():
        own = key not in varying and value is not None
        if own and any(options.get(key) != value for options in namesakes):
            if isinstance(value, bool):
                yield key if value else f"not {key}"
            else:
                yield f"{symbol(key)}={shown(value)}"


def symbol(option: str) -> str:
    """Return the symbol of an option, as in the papers."""
    return SYMBOLS.get(option, option)


def shown(value: Any) -> str:
    """Return the value of an option as short text."""
    return f"{value:g}" if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
