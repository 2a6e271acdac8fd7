"""Jinja over one row: in this process or, for what could grow without end, in one with limits.

It imports nothing but Jinja, so that the other process starts at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

Kind = Literal["text", "list", "condition"]


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key before a method: ``row.items`` is the column of that name where there is one."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _as_text(value: Any) -> Any:
    if callable(value) and not isinstance(value, Undefined):
        raise TemplateError("yields a function, not text")  # row.keys, where no column is named keys
    return value


ENVIRONMENT = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_as_text)
_UNDEFINED = re.compile(r"(?:'[^']* object' has no attribute )?'([^']*)'(?: is undefined)?")
EXPRESSION = re.compile(r"\s*\{\{(.*)\}\}\s*", re.DOTALL)

MOST_MIB = 400
"""Address space of the process: the interpreter and Jinja take 50 MB of it."""
MOST_SECONDS = 2.0
"""Processor time for one row."""
_MOST_CHARACTERS = 2**24


class MissingColumnError(LookupError):
    """A template uses a column that the row does not have; its text is the column's name."""


class NullColumnError(LookupError):
    """A template uses a column that is null in this row; its text is the column's name."""


class _NullUsedError(UndefinedError):
    pass


class _Null(StrictUndefined):
    """A null, in a column or anywhere inside its value: text is made of it by ``default`` alone."""

    __slots__ = ()
    __repr__ = StrictUndefined._fail_with_undefined_error  # in the text of a list that holds it


ENVIRONMENT.tests["none"] = lambda value: value is None or isinstance(value, _Null)


def compiled(kind: Kind, source: str) -> Callable[[Mapping[str, Any]], Any]:
    """What fills in a row: to text, a tuple of texts, or True or False.

    Raises:
        ValueError: on a syntax error; from what is returned, if the template fails on a row.
        LookupError: from what is returned: the two above.
    """
    if kind == "text":
        render = ENVIRONMENT.from_string(source).render
        return lambda row: str(_evaluate(render, row))
    expression = ENVIRONMENT.compile_expression(source, undefined_to_none=False)
    convert = _texts if kind == "list" else bool
    return lambda row: convert(_defined(_evaluate(expression, row)))


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"yields {value!r:.60}, not a list")  # noqa: TRY004 - about a value, not an argument
    return tuple(_evaluate(str, item) for item in value)


def _defined(value: Any) -> Any:
    if isinstance(value, StrictUndefined):
        _evaluate(str, value)
    return value


def _evaluate(fn: Callable[[Any], Any], given: Any) -> Any:
    if isinstance(given, Mapping):
        columns = {name: _with_nulls(value, name) for name, value in given.items()}
        given = {"row": columns, **columns}
    try:
        return fn(given)
    except _NullUsedError as err:
        raise NullColumnError(str(err)) from None
    except UndefinedError as err:
        raise MissingColumnError(_UNDEFINED.sub(r"\1", str(err.message))) from None
    except RecursionError:
        raise ValueError("is nested or calls itself too deep") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as err:
        raise ValueError(f"fails with {type(err).__name__}: {err}") from None


def _with_nulls(value: Any, name: str) -> Any:
    """The value with every null inside it as one that says where it stood; not a number is such a null."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _Null(hint=name, name=name, exc=_NullUsedError)
    if isinstance(value, dict):
        return {key: _with_nulls(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list):
        return [_with_nulls(each, f"{name}[{place}]") for place, each in enumerate(value)]
    return value


_known: dict[tuple[Kind, str], Callable[[Mapping[str, Any]], Any]] = {}


def answer(request: tuple[Kind, str, Mapping[str, Any]]) -> Any:
    """One row filled in, in a process with limits; ``compiled`` says what is raised."""
    kind, source, row = request
    try:
        if (kind, source) not in _known:
            _known[kind, source] = compiled(kind, source)
    except TemplateSyntaxError as err:  # it was parsed before: Python's own limits
        raise RecursionError from err
    value = _known[kind, source](row)
    size = 0 if kind == "condition" else sum(map(len, value))
    if size > _MOST_CHARACTERS:
        raise ValueError(f"gives {size} characters, more than {_MOST_CHARACTERS}")
    return value
