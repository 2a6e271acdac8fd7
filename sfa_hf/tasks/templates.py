"""Jinja templates over a row's columns.

Sandboxed and immutable: a task file may come from a stranger. A template is compiled once and rendered once
per row; text that comes out of a column is never read as a template again. One that could take any time or
memory is rendered in a process that has limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser

from sfa_hf.tasks.bounded import is_bounded
from sfa_hf.tasks.render_process import render_apart
from sfa_hf.tasks.rendering import (
    ENVIRONMENT,
    EXPRESSION,
    Kind,
    MissingColumnError,
    NullColumnError,
    compiled,
)

__all__ = ["Condition", "ListTemplate", "MissingColumnError", "NullColumnError", "Template"]

MOST_CHARACTERS = 100_000
"""Of a template itself: it is parsed here, which is quick for these."""
_Render = Callable[[Mapping[str, Any]], Any]


class Template:
    """Text with ``{{ column }}`` in it.

    A null column counts as undefined: ``{{ column | default("") }}`` allows it, any other use raises.

    Raises:
        ValueError: on a syntax error.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._render = _renderer("text", source)
        except TemplateSyntaxError as err:
            raise ValueError(f"must be a Jinja template: {err.message} on its line {err.lineno}") from err

    def render(self, row: Mapping[str, Any]) -> str:
        """Fill in one row.

        Raises:
            MissingColumnError: the row has no such column.
            NullColumnError: it is null in this row.
            ValueError: the template fails on this row for another reason, or takes too much time or memory.
        """
        return str(self._render(row))


class ListTemplate:
    """A list of templates, or one expression ``{{ ... }}`` whose value is a row's list.

    Raises:
        ValueError: on a syntax error, or if a single template is not one expression.
    """

    def __init__(self, source: list[str] | str) -> None:
        self._items = [Template(item) for item in source] if isinstance(source, list) else []
        self._expression: _Render | None = None
        if isinstance(source, str):
            match = EXPRESSION.fullmatch(source)
            if match is None:
                raise ValueError('must be a list of templates, or one expression like "{{ choices }}"')
            self._expression = _expression("list", match.group(1))

    def render(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The row's list; raises what :meth:`Template.render` raises, ValueError if it is no list."""
        if self._expression is None:
            return tuple(item.render(row) for item in self._items)
        return tuple(self._expression(row))


class Condition:
    """One Jinja expression, without braces, that holds for a row or does not: ``not unfair``.

    Raises:
        ValueError: on a syntax error.
    """

    def __init__(self, source: str) -> None:
        self._expression = _expression("condition", source)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the value is true; raises what :meth:`Template.render` raises."""
        return bool(self._expression(row))


def literals(source: str) -> list[str]:
    """The text that a template has outside its braces, the same in every row."""
    return [node.data for node in _tree("text", source).find_all(nodes.TemplateData)]


def _expression(kind: Kind, source: str) -> _Render:
    try:
        return _renderer(kind, source)
    except TemplateSyntaxError as err:
        raise ValueError(f"must be one Jinja expression: {err.message}") from err


def _renderer(kind: Kind, source: str) -> _Render:
    """What fills in a row. Only bounded templates are compiled here: compiling computes their constants."""
    if len(source) > MOST_CHARACTERS:
        raise ValueError(f"has {len(source)} characters, more than {MOST_CHARACTERS}")
    try:
        tree = _tree(kind, source)
        if is_bounded(tree):
            return compiled(kind, source)
    except (RecursionError, MemoryError, SyntaxError) as err:
        raise ValueError("is nested too deep") from err
    return partial(render_apart, kind, source)


def _tree(kind: Kind, source: str) -> nodes.Template:
    if kind == "text":
        tree = ENVIRONMENT.parse(source)
    else:
        parser = Parser(ENVIRONMENT, source, state="variable")
        expression = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateSyntaxError("chunk after expression", parser.stream.current.lineno)
        tree = nodes.Template([nodes.Output([expression])], lineno=1)
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        known = ENVIRONMENT.filters if isinstance(node, nodes.Filter) else ENVIRONMENT.tests
        if node.name not in known:
            kind_of = type(node).__name__.lower()
            raise TemplateSyntaxError(f"No {kind_of} named {node.name!r}.", node.lineno)
    return tree
