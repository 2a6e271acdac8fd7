"""What a command takes, laid out for people: sections of keys with type, default and help."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from sfa_hf.config.declared import REQUIRED, options_of, readable

_PLAIN_TEXT = re.compile(r"[A-Za-z][\w.-]*|\.")
_IN_YAML = {"None": "null", "True": "true", "False": "false"}
_OF_PYTHON = re.compile(rf"\b(?:{'|'.join(_IN_YAML)})\b")


@dataclass(frozen=True)
class Key:
    """One key of a command.

    Attributes:
        name: dotted, as it is written: ``evaluation.limit``.
        kind: its type in words; beside choices, what else it may be, or "".
        default: as it would be written; None where it has none.
        help: one or two sentences.
        choices: the words it may be; () where there is no such list.
    """

    name: str
    kind: str
    default: str | None
    help: str
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The choices, where there are some, and the type in words."""
        return ", ".join(filter(None, [*self.choices, self.kind]))

    @property
    def as_written(self) -> str:
        """``evaluation.limit=null``; only the name where there is no default."""
        return self.name if self.default is None else f"{self.name}={self.default}"

    @property
    def description(self) -> str:
        """Type and help in one."""
        required = "" if self.default is not None else "; required"
        return f"[{self.type}{required}] {self.help}"


@dataclass(frozen=True)
class Section:
    """Keys that belong together.

    Attributes:
        title: what they are about.
        keys: in the order of their declarations.
        about: a line below the title; "" for none.
    """

    title: str
    keys: tuple[Key, ...]
    about: str = ""


def keys_of(
    declaration: Any,
    prefix: str = "",
    *,
    leave_out: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Key, ...]:
    """The keys that a declaration stands for, and those of the models inside it.

    Args:
        declaration: what :func:`sfa_hf.config.declared.options_of` reads.
        prefix: dotted key under which it stands; "" at the top.
        leave_out: names of options that are not keys, or that another section lists.
        defaults: by name, where a command's differ from the declaration's.
        choices: words by name, where a declaration that is not ours does not say them.
    """
    found: list[Key] = []
    for option in options_of(declaration):
        if option.key in leave_out:
            continue
        name = f"{prefix}.{option.key}" if prefix else option.key
        default = (defaults or {}).get(option.key, option.default)
        inner = _model(option.annotation)
        if inner is not None:
            if type(None) in typing.get_args(option.annotation):
                written = "null" if default is None else "{...}"
                found.append(Key(name, "mapping, null", written, _sentence(option.help)))
            found += keys_of(inner, name)
        else:
            words = tuple((choices or {}).get(option.key, option.choices))
            others = [each for each in option.type.split(" or ") if each not in ("text", "word")]
            kind = ", ".join(others) if words else option.type
            found.append(Key(name, kind, _written(default), _sentence(option.help), words))
    return tuple(found)


def first_line(declaration: Any) -> str:
    """Of its docstring, readable."""
    return readable((declaration.__doc__ or "").strip().partition("\n")[0])


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model of options that a field holds, alone or as an alternative to null."""
    members = getattr(annotation, "__args__", ()) if not isinstance(annotation, type) else (annotation,)
    models = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
    others = [each for each in members if each not in models and each is not type(None)]
    return models[0] if len(models) == 1 and not others else None


def _sentence(text: str) -> str:
    """Help in the words of a config: null for None, true for True."""
    return _OF_PYTHON.sub(lambda found: _IN_YAML[found[0]], text)


def _written(value: Any) -> str | None:
    """A default as it can be typed: a word, or JSON, which is YAML too and stays on one line."""
    if value is REQUIRED:
        return None
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, str) and _PLAIN_TEXT.fullmatch(plain):
        return plain
    return json.dumps(plain, default=_as_json, ensure_ascii=False)


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_defaults=True)
    return {} if dataclasses.is_dataclass(value) else str(value)
