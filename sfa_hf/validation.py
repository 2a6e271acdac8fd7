"""Turn pydantic's list of errors into the project's one line."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from sfa_hf.errors import ConfigError, nearest

Location = tuple[int | str, ...]


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
        return ConfigError(key, "is not a known key", nearest(place.key[-1], _fields(place.annotation)))
    if detail["type"] == "missing":
        return ConfigError(key, "is missing", "it has no default")
    return ConfigError(key, f"is {_short(detail['input'])}", " or ".join(_right(each) for each in details))


def _right(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message if detail["type"] == "value_error" else message.replace("should be", "must be", 1)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields(annotation: Any) -> list[str]:
    return [name for model in _models(annotation) for name in model.model_fields]


def _place(model: type[BaseModel], location: Location) -> _Place:
    """Follow pydantic's location through the annotations, leaving out the names of union members."""
    key: list[str] = []
    annotation: Any = model
    for part in location:
        models = [each for each in _models(annotation) if part in each.model_fields]
        chosen = [each for each in _models(annotation) if each.__name__ == part]
        if models:
            key.append(str(part))
            annotation = models[0].model_fields[str(part)].annotation
        elif chosen:
            annotation = chosen[0]
        elif part == location[-1] and _models(annotation) and not _is_tag(part, annotation):
            key.append(str(part))  # unknown key: stay at the model whose fields it may have meant
        elif not _is_tag(part, annotation):
            key.append(str(part))
            annotation = _inside(annotation, part)
    return _Place(tuple(key), annotation)


def _is_tag(part: int | str, annotation: Any) -> bool:
    """Whether pydantic added this part to say which member of a union it tried."""
    if isinstance(part, int):
        return False
    members = list(_members(annotation))
    return part == "[key]" or (len(members) > 1 and part.partition("[")[0] in map(_tag, members))


def _tag(member: Any) -> str:
    origin = typing.get_origin(member) or member
    name = "literal" if origin is typing.Literal else getattr(origin, "__name__", str(origin))
    return {"Mapping": "dict", "Sequence": "list"}.get(name, name)


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union, without ``Annotated`` wrappers."""
    if isinstance(annotation, type):
        yield annotation
        return
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _members(args[0])
    elif origin is typing.Union or type(annotation).__name__ == "UnionType":
        for member in args:
            yield from _members(member)
    else:
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [each for each in _members(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]


def _inside(annotation: Any, part: int | str) -> Any:
    """The annotation of a list's items or a mapping's values."""
    for member in _members(annotation):
        args = [each for each in typing.get_args(member) if each is not Ellipsis]
        is_sequence = getattr(typing.get_origin(member), "__name__", "") in {"list", "tuple", "Sequence"}
        if args and is_sequence == isinstance(part, int):
            return args[-1]
    return Any
