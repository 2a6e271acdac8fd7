"""Declarations as rows of a table: key, type or choices, default, help."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from sfa_hf.config.declared import REQUIRED, Option, options_of

HEADER = ("key", "value", "default", "meaning")
Row = tuple[str, str, str, str]
_PLAIN_TEXT = re.compile(r"[A-Za-z][\w.-]*|\.")
_IN_YAML = {"None": "null", "True": "true", "False": "false"}


def rows(
    declaration: Any,
    prefix: str = "",
    *,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> list[Row]:
    """One row for each key; an option that is a mapping of known keys gives theirs.

    Args:
        declaration: what :func:`sfa_hf.config.declared.options_of` reads.
        prefix: dotted key under which it stands.
        without: keys that are left out.
        defaults: by key, where they are not the declaration's own.
    """
    found: list[Row] = []
    for option in options_of(declaration):
        if option.key in without:
            continue
        key = f"{prefix}.{option.key}" if prefix else option.key
        default = (defaults or {}).get(option.key, option.default)
        if model := _nested(option):
            found += rows(model, key)
        else:
            found.append((key, _value(option), _default(default), _in_yaml(option.help)))
    return found


def markdown(table: list[Row]) -> str:
    """A table of rows, for a page."""
    lines = [HEADER, tuple("---" for _ in HEADER), *table]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _in_yaml(text: str) -> str:
    """Help in the words of a config."""
    return re.sub(r"\b(None|True|False)\b", lambda found: _IN_YAML[found[0]], text)


def _nested(option: Option) -> type[BaseModel] | None:
    models = [each for each in option.types if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if len(models) == len(option.types) == 1 else None


def _value(option: Option) -> str:
    words = [f"`{word}`" for word in option.choices]
    others = [name for name in option.type.split(" or ") if name not in ("text", "word")]
    return ", ".join(words + others) if words else option.type


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, str) and _PLAIN_TEXT.fullmatch(plain):
        return f"`{plain}`"
    return f"`{json.dumps(plain, default=_as_json)}`"


def _as_json(value: Any) -> Any:
    return value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else str(value)
