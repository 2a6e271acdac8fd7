"""The ``methods:`` of a comparison: names, and mappings whose lists of values form a grid."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sfa_hf.errors import ConfigError
from sfa_hf.methods import DEFAULT_METHOD, Method, known_methods, make_method

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Entry:
    """One method with one value for each of its options.

    Attributes:
        key: where it stands in the config: "methods.3".
        label: names it in tables, plots and folders.
        options: the ``method`` section of its runs.
        method: checked.
    """

    key: str
    label: str
    options: dict[str, Any]
    method: Method


def expand(specs: Sequence[str | Mapping[str, Any]], defaults: Mapping[str, Any]) -> list[Entry]:
    """Work out the entries that ``methods`` stands for.

    Args:
        specs: names, or mappings of ``name``, options and an optional ``label``. A list of values, for an
            option that is not a list itself, stands for one entry a value; several lists, for all
            combinations.
        defaults: the config's own ``method`` section: an entry of the same name starts from its options.

    Raises:
        ConfigError: a method or an option that cannot be, an empty list, or the same twice.
    """
    found = [
        entry for index, spec in enumerate(specs) for entry in _expanded(f"methods.{index}", spec, defaults)
    ]
    for entry, other in itertools.combinations(found, 2):
        if entry.method == other.method:
            problem = f"is the method of {entry.key} again, with the same options ({entry.label})"
            raise ConfigError(other.key, problem, "each once")
        if entry.label == other.label:
            problem = f"{other.label!r} is a name of {entry.key} too"
            raise ConfigError(f"{other.key}.label", problem, "a label of its own for each")
    return found


def _expanded(key: str, spec: str | Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Entry]:
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in given:
        raise ConfigError(f"{key}.name", "is missing", f"known: {', '.join(sorted(known_methods()))}")
    label = given.pop("label", None)
    if label is not None and not (isinstance(label, str) and _LABEL.fullmatch(label)):
        right = "letters, digits and . _ + -"
        raise ConfigError(f"{key}.label", f"{label!r} cannot name a folder", right)
    name = given.pop("name")
    below = dict(defaults) if defaults.get("name", DEFAULT_METHOD) == name else {}
    grid = {option: _values(f"{key}.{option}", str(name), option, value) for option, value in given.items()}
    varying = [option for option, values in grid.items() if len(values) > 1]
    named = varying if label is not None else list(grid)
    for values in itertools.product(*grid.values()):
        options = {"name": name, **below, **dict(zip(grid, values, strict=True))}
        method = make_method(options, key)
        first = label or str(name)
        yield Entry(key, "-".join([first, *(_part(option, method) for option in named)]), options, method)


def _values(key: str, name: str, option: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or _is_list_option(name, option, value):
        return [value]
    if not value:
        raise ConfigError(key, "is an empty list", "at least one value")
    return value


def _is_list_option(name: str, option: str, value: list[Any]) -> bool:
    """Whether the option's own type is a list, so that ``value`` is one value of it and no grid."""
    method = known_methods().get(name)
    fields = {} if method is None else method.model_fields
    field = next((field for key, field in fields.items() if option in (key, field.alias)), None)
    if field is None:
        return False
    adapter: TypeAdapter[Any] = TypeAdapter(field.annotation or Any)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _part(option: str, method: Method) -> str:
    """The option and its value, as a label has it: beta0.25, p1, decoupled, no_decoupled."""
    value = {**method.model_dump(), **method.model_dump(by_alias=True)}[option]
    if isinstance(value, bool):
        return option if value else f"no_{option}"
    text = f"{value:.17g}" if isinstance(value, float) and value.is_integer() else str(value)
    plain = _NOT_IN_LABELS.sub("_", text)
    if plain == text:
        return f"{option}{text}"
    # values, such as patterns, that look alike without their special characters
    return f"{option}{plain}.{hashlib.sha256(text.encode()).hexdigest()[:6]}"
