"""Turn pydantic's list of errors into the project's one line."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sfa_hf.errors import ConfigError, nearest

Location = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], prefix: str = "") -> Model:
    """``values`` as ``model``. Raises ConfigError as :func:`as_config_error` makes it."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, prefix, model) from error


@dataclass(frozen=True)
class _Place:
    """Where an error sits: the key as the user wrote it, and the types that may stand there."""

    key: tuple[str, ...]
    annotation: Any


def as_config_error(err: ValidationError, prefix: str, model: type[BaseModel]) -> ConfigError:
    """The most telling of pydantic's errors, as one :class:`ConfigError`.

    An unknown key outranks a missing one, because a misspelt required key causes both. Of a union's
    complaints the one that got furthest into the value is kept; those at the same key are joined.

    Args:
        err: what ``model``'s validation raised.
        prefix: dotted key under which ``model``'s input stands in the user's config; "" at the top.
        model: the class that was validated; names the fields that a misspelt key may have meant.
    """
    details = sorted(err.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    places = [_place(model, detail["loc"]) for detail in details]
    chosen = _furthest(places)
    same = [detail for detail, place in zip(details, places, strict=True) if place.key == places[chosen].key]
    return _explain(same, places[chosen], prefix)


def _furthest(places: Sequence[_Place]) -> int:
    """Index of the deepest place at or below the first one."""
    first = places[0].key
    below = [i for i, place in enumerate(places) if place.key[: len(first)] == first]
    return max(below, key=lambda i: len(places[i].key))


def _explain(details: Sequence[Any], place: _Place, prefix: str) -> ConfigError:
    detail = details[0]
    key = ".".join(part for part in (prefix, *place.key) if part) or "config"
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return ConfigError(".".join(part for part in (key, cause.key) if part), cause.problem, cause.right)
    if detail["type"] == "extra_forbidden":
        return ConfigError(key, "is not a known key", nearest(place.key[-1], _keys(place.annotation)))
    if detail["type"] == "missing":
        return ConfigError(key, "is missing", "it has no default")
    return ConfigError(key, f"is {_short(detail['input'])}", " or ".join(_right(each) for each in details))


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _right(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message if detail["type"] == "value_error" else message.replace("should be", "must be", 1)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _place(model: type[BaseModel], location: Location) -> _Place:
    """Follow pydantic's location through the annotations, leaving out the names of union members."""
    key: list[str] = []
    annotation: Any = model
    for part in location:
        members = list(_members(annotation))
        if isinstance(part, str) and len(members) > 1:
            annotation = _tried(members, part)
        elif part != "[key]":
            key.append(str(part))
            annotation = _inside(members[0], part)
    return _Place(tuple(key), annotation)


def _tried(members: Sequence[Any], tag: str) -> Any:
    """The member of a union that ``tag`` means: "str", "list[str]", "function-after[f(), Model]"."""
    words = set(re.findall(r"\w+", tag))
    named = [each for each in members if isinstance(each, type) and each.__name__ in words]
    containers = [each for each in members if _container(each) == tag.partition("[")[0]]
    return next(iter(containers + named), Any)


def _container(annotation: Any) -> str:
    name = getattr(typing.get_origin(annotation), "__name__", "")
    return {"Mapping": "dict", "Sequence": "list"}.get(name, name)


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union but None, without ``Annotated`` wrappers."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _members(args[0])
    elif origin in (typing.Union, types.UnionType):
        for member in args:
            yield from _members(member)
    elif annotation is not types.NoneType:
        yield annotation


def _inside(annotation: Any, part: int | str) -> Any:
    """What a model's field, a list's items or a mapping's values are annotated with.

    A key that the model lacks leads nowhere: the model stays, as its fields are what the key may have meant.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return annotation if field is None else field.annotation
    args = [each for each in typing.get_args(annotation) if each is not Ellipsis]
    return args[-1] if args and _container(annotation) in {"list", "tuple", "dict"} else Any
