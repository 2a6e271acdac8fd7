"""Methods that differ in options alone, as lines along one option."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        title: the method's name, and the options that tell the line from the family's others.
        option: that varies along it.
        methods: by the option's value, rising.
    """

    title: str
    option: str
    methods: list[Method]

    def values(self) -> list[str]:
        """The option's value at each point, for a label."""
        return [shown(method.options[self.option]) for method in self.methods]


@dataclass(frozen=True)
class Family:
    """Entries of one method.

    Attributes:
        name: of the method.
        varying: its options that differ between the entries, in the method's order.
        methods: at least two.
    """

    name: str
    varying: list[str]
    methods: list[Method]

    @property
    def strength(self) -> str | None:
        """The first number among the varying options: for SFA beta."""
        return next(iter(self._numbers()), None)

    @property
    def second(self) -> str | None:
        """The second number among the varying options, for SFA p; the first where there is no other."""
        return next(iter(self._numbers()[1:]), self.strength)

    def lines(self, along: str) -> list[Line]:
        """Lines along an option, one for each combination of the others."""
        others = [option for option in self.varying if option != along]
        groups: dict[tuple[str, ...], list[Method]] = {}
        for method in sorted(self.methods, key=lambda each: float(each.options[along])):
            groups.setdefault(tuple(shown(method.options[option]) for option in others), []).append(method)
        return [Line(self._title(others, values), along, groups[values]) for values in sorted(groups)]

    def _title(self, options: Sequence[str], values: Sequence[str]) -> str:
        pairs = zip(options, values, strict=True)
        return " ".join([self.name, *(f"{symbol(option)}={value}" for option, value in pairs)])

    def _numbers(self) -> list[str]:
        return [option for option in self.varying if all(_is_number(m.options[option]) for m in self.methods)]


def families(comparison: Comparison) -> list[Family]:
    """The methods that are there with several values of an option that is a number."""
    names = dict.fromkeys(method.name for method in comparison.methods)
    found = [_family(name, [each for each in comparison.methods if each.name == name]) for name in names]
    return [family for family in found if family.strength is not None]


def _family(name: str, methods: list[Method]) -> Family:
    options = methods[0].options
    varying = [key for key in options if len(set(_texts(methods, key))) > 1]
    return Family(name, varying, methods)


def _texts(methods: Iterable[Method], option: str) -> Iterable[str]:
    return (repr(method.options.get(option)) for method in methods)


def symbol(option: str) -> str:
    """An option's name as the papers write it."""
    return SYMBOLS.get(option, option)


def shown(value: Any) -> str:
    """An option's value, short."""
    return f"{value:g}" if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
