"""Types of options that several callbacks take: each carries its check, wherever it is declared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sfa_hf.config.patterns import compiled
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.shards.store import known_stores


@dataclass(frozen=True)
class Check:
    """What an option's value has to be; stands in the ``Annotated`` of its type.

    Called with a value, it returns the value to use, or raises ConfigError with no key: who calls knows it.
    In a pydantic model, the value of a config is first made one of the annotated type (YAML reads ``1e-5`` as
    text), but for true and false, which are no numbers.

    Attributes:
        accepts: whether a value is right; it may be anything.
        problem: what is said of one that is not, behind it.
        right: what would be right.
        convert: makes of a right value the one to use.
    """

    accepts: Callable[[Any], bool]
    problem: str
    right: str
    convert: Callable[[Any], Any] = lambda value: value

    def __call__(self, value: Any) -> Any:
        if not self.accepts(value):
            raise ConfigError("", f"{value!r} {self.problem}", self.right)
        return self.convert(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def in_config(value: Any, coerce: Callable[[Any], Any]) -> Any:
            return self(value if isinstance(value, bool) else coerce(value))

        return core_schema.no_info_wrap_validator_function(in_config, handler(source))


class Choice:
    """One of some words. Called, and in a pydantic model, as :class:`Check`.

    Args:
        words: the choices; a function where they are looked up late, such as those of a registry.
    """

    def __init__(self, words: Iterable[str] | Callable[[], Iterable[str]]) -> None:
        self._words = words

    @property
    def words(self) -> tuple[str, ...]:
        """The choices, in alphabetical order."""
        return tuple(sorted(self._words() if callable(self._words) else self._words))

    def __call__(self, value: Any) -> Any:
        if value not in self.words:
            known = nearest(value if isinstance(value, str) else "", self.words)
            raise ConfigError("", f"unknown value {value!r}", known)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(lambda value, _: self(value), handler(source))


class Expression(Check):
    """A regular expression of Python; it stays text."""

    def __init__(self) -> None:
        super().__init__(
            lambda value: isinstance(value, str), "is not text", "a regular expression on parameter names"
        )

    def __call__(self, value: Any) -> Any:
        try:
            compiled(super().__call__(value))
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            problem = f"{value!r} {error}".replace("must be", "is not", 1)
            raise ConfigError(
                "", problem, "Python's regular expressions; '.' matches any character"
            ) from error
        return value


def number(accepts: Callable[[Any], bool], problem: str, right: str) -> Check:
    """A check of real numbers, of which it makes a float."""

    def is_right(value: Any) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool) and accepts(value)

    return Check(is_right, problem, right, float)


def whole(accepts: Callable[[int], bool], problem: str, right: str) -> Check:
    """A check of whole numbers."""

    def is_right(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and accepts(value)

    return Check(is_right, problem, right)


_LARGEST = sys.float_info.max
_LAST_SEED = 2**32 - 1
"""NumPy takes no larger one."""

_BETA = number(lambda b: 0 <= b <= 1, "is not the weight of an average", "a number from 0 to 1")
_P = number(lambda p: 0 < p <= 1, "is not a fraction of the training", "a number above 0, up to 1")
_STEPS = whole(lambda steps: steps >= 1, "is not a number of steps", "a whole number from 1 on")
_STRENGTH = number(
    lambda s: 0 <= s <= _LARGEST, "is not the strength of a penalty", "a finite number from 0 on"
)
_FRACTION = number(lambda f: 0 <= f <= 1, "is not a fraction", "a number from 0 to 1")
_POWER = number(lambda q: 0 <= q <= 2, "is not a power of F", "a number from 0 to 2; 0.5 and 1 are usual")
_RATE = number(lambda r: 0 < r <= _LARGEST, "is not a learning rate", "a finite number above 0")
_INDEX = whole(lambda _: True, "is not a position", "a whole number; -1 is the last")
_SEED = whole(lambda s: 0 <= s <= _LAST_SEED, "is not a seed", f"a whole number from 0 to {_LAST_SEED}")
_FLAG = Check(lambda value: isinstance(value, bool), "is neither true nor false", "true or false")
_SOURCE = Check(
    lambda value: isinstance(value, str | PathLike), "is neither a path nor a name", "a folder or a Hub id"
)
EXPRESSION = Expression()

Beta = Annotated[float, _BETA]
P = Annotated[float, _P]
MergeEvery = Annotated[int, _STEPS]
Strength = Annotated[float, _STRENGTH]
Fraction = Annotated[float, _FRACTION]
Power = Annotated[float, _POWER]
Rate = Annotated[float, _RATE]
Index = Annotated[int, _INDEX]
Seed = Annotated[int, _SEED]
Flag = Annotated[bool, _FLAG]
Pattern = Annotated[str, EXPRESSION]
Source = Annotated[str | PathLike[str], _SOURCE]
AnchorDevice = Annotated[str, Choice(known_stores)]
Lora = Annotated[str, Choice(("exact", "factors"))]
AnchorDtype = Annotated[str, Choice(("float32", "bfloat16"))]
