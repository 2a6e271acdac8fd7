"""Reading a declaration: what options a constructor, a model of options or a dataclass has.

An option is declared where it is used: its type, with the check, is the annotation; its default stands beside
it; its help is its entry in the docstring's ``Args:`` or ``Attributes:``.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ParamSpec, TypeVar

import docstring_parser
from pydantic import BaseModel

from sfa_hf.config.options import Check, Choice
from sfa_hf.errors import under

REQUIRED = inspect.Parameter.empty
"""``Option.default`` of an option without one."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_SYMBOL = re.compile(r"(\\\w+(?:_\w+)?|[A-Za-z]|[^\W\d_a-zA-Z](?:_\w)?)(?= in \[|,|;|\.|$)")


@dataclass(frozen=True)
class Option:
    r"""One option.

    Attributes:
        name: in Python: ``lambda_``.
        annotation: its type, with what checks it.
        default: :data:`REQUIRED` where it has none.
        text: its entry in the docstring, as it is written there (\beta); "" where there is none.
        alias: how a config spells it, where a model says so.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    alias: str | None = None

    @property
    def key(self) -> str:
        """How a config spells it: ``lambda``."""
        return self.alias or key_of(self.name)

    @property
    def check(self) -> Check | Choice | None:
        """What its value is checked by, if it is not None; of a pydantic model's own constraints: None."""
        return next((each for each in _metadata(self.annotation) if isinstance(each, Check | Choice)), None)

    @property
    def types(self) -> list[Any]:
        """The alternatives of its type but None, without what checks them."""
        return [each for each in _members(self.annotation) if each is not types.NoneType]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be; () where there is no such list."""
        if isinstance(self.check, Choice):
            return self.check.words
        return tuple(word for each in self.types for word in _words(each))

    @property
    def type(self) -> str:
        """In words: "number", "text or list of text"."""
        names = [_type_name(each) for each in self.types]
        return " or ".join(dict.fromkeys(names)) or "null"

    @property
    def help(self) -> str:
        r"""The docstring's entry with β for \beta, in one line."""
        return readable(self.text)

    @property
    def symbol(self) -> str:
        """The paper's symbol, where the entry starts with it."""
        found = _SYMBOL.match(self.text)
        return readable(found[1]) if found else ""


def key_of(name: str) -> str:
    """How a config spells an option: ``lambda_`` is a Python name alone."""
    return name.rstrip("_")


@functools.cache
def options_of(declaration: Any) -> tuple[Option, ...]:
    """The options that a constructor, a function, a pydantic model or a dataclass declares, in its order."""
    if isinstance(declaration, type) and issubclass(declaration, BaseModel):
        return tuple(_fields_of_model(declaration))
    if isinstance(declaration, type) and dataclasses.is_dataclass(declaration):
        return tuple(_fields_of_dataclass(declaration))
    return tuple(_parameters(declaration))


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Check a function's arguments, or a constructor's, as their annotations say.

    Raises:
        ConfigError: by the function, under the argument's name.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_checks(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = signature.bind(*args, **kwargs)
        for option in _checked_parameters(function):
            if option.name in given.arguments:
                value = given.arguments[option.name]
                given.arguments[option.name] = _checked(option, value)
        return function(*given.args, **given.kwargs)

    return with_checks


def passes_on(target: Callable[..., Any]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Show, of a function that hands ``*args`` and ``**options`` to ``target``, the arguments of both."""
    theirs = inspect.signature(target).parameters.values()

    def with_both(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        positional = [p for p in theirs if p.kind is not p.KEYWORD_ONLY]
        rest = [p for p in theirs if p.kind is p.KEYWORD_ONLY]
        function.__signature__ = signature.replace(parameters=[*positional, *own, *rest])  # type: ignore[attr-defined]
        return function

    return with_both


def readable(text: str) -> str:
    r"""A docstring's text for people: \beta as β, \bar F as F with a bar, references as names."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text).replace("``", "`")
    text = re.sub(r"\\bar\s*(\\?[A-Za-z]+)", "\\1\N{COMBINING MACRON}", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda found: _entity(found[1], found[0]), text)
    return " ".join(text.split())


def _entity(name: str, otherwise: str) -> str:
    character = html.unescape(f"&{name};")
    return otherwise if character.startswith("&") else character


def _checked(option: Option, value: Any) -> Any:
    if value is None and types.NoneType in _members(option.annotation):
        return None
    assert option.check is not None
    with under(option.key):
        return option.check(value)


@functools.cache
def _checked_parameters(function: Callable[..., Any]) -> tuple[Option, ...]:
    return tuple(option for option in _parameters(function) if option.check is not None)


def _parameters(function: Callable[..., Any]) -> Iterator[Option]:
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = typing.get_type_hints(called, include_extras=True)
    entries = _entries(function)
    for name, parameter in inspect.signature(called).parameters.items():
        if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield Option(name, hints.get(name, Any), parameter.default, entries.get(name, ""))


def _fields_of_model(model: type[BaseModel]) -> Iterator[Option]:
    entries = _entries(model)
    for name, field in model.model_fields.items():
        annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        yield Option(name, annotation, default, field.description or entries.get(name, ""), field.alias)


def _fields_of_dataclass(declaration: Any) -> Iterator[Option]:
    hints = typing.get_type_hints(declaration, include_extras=True)
    for field in dataclasses.fields(declaration):
        if field.init:
            default = REQUIRED if field.default is dataclasses.MISSING else field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            yield Option(field.name, hints[field.name], default, field.metadata.get("help", ""))


def _entries(declaration: Any) -> dict[str, str]:
    """The docstring's entries by name; a class has those of its bases, but for what it writes anew.

    A class may write them in its own docstring, or in that of its constructor.
    """
    entries: dict[str, str] = {}
    owners = reversed(declaration.__mro__) if isinstance(declaration, type) else [declaration]
    texts = (text for owner in owners for text in (owner.__doc__, _text_of_constructor(owner)))
    for text in texts:
        parsed = docstring_parser.google.parse(text or "")
        entries |= {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}
    return entries


def _text_of_constructor(owner: Any) -> str | None:
    constructor = vars(owner).get("__init__") if isinstance(owner, type) else None
    return getattr(constructor, "__doc__", None)


def _metadata(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield from annotation.__metadata__
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _metadata(member)


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union, without ``Annotated`` wrappers."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _members(args[0])
    elif origin in (typing.Union, types.UnionType):
        for member in args:
            yield from _members(member)
    else:
        yield annotation


def _words(annotation: Any) -> Iterator[str]:
    """The words of a Literal or an Enum."""
    if typing.get_origin(annotation) is typing.Literal:
        yield from map(str, typing.get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(each.value) for each in annotation)


_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value"}


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if any(_words(annotation)):
        return "word"
    if origin is None:
        return _NAMES.get(annotation, "mapping" if _is_mapping(annotation) else "text")
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        return "mapping"
    inner = dict.fromkeys(_type_name(each) for arg in args if arg is not ... for each in _members(arg))
    return f"list of {' or '.join(inner)}"


def _is_mapping(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, dict | BaseModel)
