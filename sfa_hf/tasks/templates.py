"""Jinja templates over a row's columns.

Sandboxed and immutable: a task file may come from a stranger. A template is compiled once and rendered once
per row; text that comes out of a column is never read as a template again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_EXPRESSION = re.compile(r"\s*\{\{(.*)\}\}\s*", re.DOTALL)


class MissingColumnError(LookupError):
    """A template uses a column that the row does not have; its text is the column's name."""


class NullColumnError(LookupError):
    """A template uses a column that is null in this row; its text is the column's name."""


class _NullUsedError(UndefinedError):
    pass


class Template:
    """Text with ``{{ column }}`` in it.

    A null column counts as undefined: ``{{ column | default("") }}`` allows it, any other use raises.

    Raises:
        ValueError: on a syntax error.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except TemplateSyntaxError as err:
            raise ValueError(f"must be a Jinja template: {err.message} on its line {err.lineno}") from err

    def render(self, row: Mapping[str, Any]) -> str:
        """Fill in one row.

        Raises:
            MissingColumnError: the row has no such column.
            NullColumnError: it is null in this row.
            ValueError: the template fails on this row for another reason.
        """
        return str(_evaluate(self._template.render, row))


class ListTemplate:
    """A list of templates, or one expression ``{{ ... }}`` whose value is a row's list.

    Raises:
        ValueError: on a syntax error, or if a single template is not one expression.
    """

    def __init__(self, source: list[str] | str) -> None:
        self._items = [Template(item) for item in source] if isinstance(source, list) else None
        self._expression = _compile_expression(source) if isinstance(source, str) else None

    def render(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The row's list; raises what :meth:`Template.render` raises, ValueError if it is no list."""
        if self._items is not None:
            return tuple(item.render(row) for item in self._items)
        value = _evaluate(self._expression, row)
        if isinstance(value, StrictUndefined):
            _raise_undefined(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"yields {value!r:.60}, not a list")  # noqa: TRY004 - about a value, not an argument
        if any(item is None for item in value):
            raise ValueError("yields a list with a null in it")
        return tuple(str(item) for item in value)


class Condition:
    """One Jinja expression, without braces, that holds for a row or does not: ``not unfair``.

    Raises:
        ValueError: on a syntax error.
    """

    def __init__(self, source: str) -> None:
        self._expression = _compiled(source)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the value is true; raises what :meth:`Template.render` raises."""
        value = _evaluate(self._expression, row)
        if isinstance(value, StrictUndefined):
            _raise_undefined(value)
        return bool(value)


def _compile_expression(source: str) -> Any:
    match = _EXPRESSION.fullmatch(source)
    if match is None:
        raise ValueError('must be a list of templates, or one expression like "{{ choices }}"')
    return _compiled(match.group(1))


def _compiled(expression: str) -> Any:
    try:
        return _ENVIRONMENT.compile_expression(expression, undefined_to_none=False)
    except TemplateSyntaxError as err:
        raise ValueError(f"must be one Jinja expression: {err.message}") from err


def _evaluate(fn: Any, row: Mapping[str, Any]) -> Any:
    try:
        return fn({name: _null(name) if value is None else value for name, value in row.items()})
    except _NullUsedError as err:
        raise NullColumnError(str(err)) from None
    except UndefinedError as err:
        raise MissingColumnError(str(err.message).removesuffix(" is undefined").strip("'")) from None
    except SecurityError as err:
        raise ValueError(f"does what a template may not: {err}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as err:
        raise ValueError(f"fails with {type(err).__name__}: {err}") from None


def _null(name: str) -> StrictUndefined:
    return StrictUndefined(hint=name, name=name, exc=_NullUsedError)


def _raise_undefined(value: StrictUndefined) -> None:
    try:
        str(value)
    except _NullUsedError as err:
        raise NullColumnError(str(err)) from None
    except UndefinedError as err:
        raise MissingColumnError(str(err.message).removesuffix(" is undefined").strip("'")) from None
