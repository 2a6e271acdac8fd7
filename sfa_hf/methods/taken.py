"""Options that a method takes over from what it hands them to: a callback, a merge rule, a function."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from sfa_hf.config.declared import REQUIRED, Option, key_of, options_of

GIVEN = {"anchor", "anchor_moments", "past", "save_anchor", "seed", "weights"}
"""Arguments that the sequence itself gives: no method has them as options."""


@dataclass(frozen=True)
class From:
    """Which options of a declaration a method takes: as they are declared there, but for what is said here.

    Attributes:
        source: a callback, a merge rule or a function.
        only: names of the options that are taken; None: all but those in ``without`` and :data:`GIVEN`.
        without: names of options that are not taken.
        names: what an option is called in the method, by its name in the source.
        defaults: other default values, by the name in the source.
    """

    source: Callable[..., Any]
    only: Sequence[str] | None = None
    without: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Option]:
        """The options that are taken, by their names in the method."""
        return {
            self.names.get(option.name, option.name): option
            for option in options_of(self.source)
            if (option.name in self.only if self.only is not None else self._is_open(option.name))
        }

    def fields(self) -> dict[str, tuple[Any, Any]]:
        """A pydantic field, as annotation and :func:`pydantic.Field`, for each option that is taken."""
        return {name: self._field(name, option) for name, option in self.options().items()}

    def keys(self) -> dict[str, str]:
        """How the method's config spells what the source's errors name."""
        return {key_of(name): key_of(field) for name, field in self.names.items()}

    def _is_open(self, name: str) -> bool:
        return name not in self.without and name not in GIVEN

    def _field(self, name: str, option: Option) -> tuple[Any, Any]:
        default = self.defaults.get(option.name, option.default)
        annotation = option.annotation
        if default is None and option.default is not None:
            annotation = typing.Optional[annotation]  # noqa: UP045 - made at run time
        alias = key_of(name) if key_of(name) != name else None
        value = ... if default is REQUIRED else default
        return annotation, Field(value, alias=alias, description=option.text)


def names_of(source: Callable[..., Any]) -> list[str]:
    """What a source's arguments are called."""
    return [option.name for option in options_of(source)]
