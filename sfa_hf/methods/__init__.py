"""Continual-learning methods: one file each, found by looking into this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError, nearest, under
from sfa_hf.methods.base import Method, Preparation, Stage
from sfa_hf.registry import classes, plugins

__all__ = ["DEFAULT_METHOD", "Method", "Preparation", "Stage", "known_methods", "make_method"]

DEFAULT_METHOD = "sfa"
_RENAMED = dict.fromkeys(("average_first_task", "merge_first_task", "penalise_first_task"), "first_task")
_FIRST = Stage(index=0, tasks=(), base="base", folder=Path("0"))
_SECOND = Stage(index=1, tasks=(), base="base", folder=Path("1"), past=(_FIRST,))


@cache
def known_methods() -> dict[str, type[Method]]:
    """Every method of this folder by the name that selects it in a config."""
    return plugins(__name__, classes(Method, _name))


def make_method(options: Mapping[str, Any], key: str = "method") -> Method:
    """Build the method that ``options["name"]`` selects, with the other entries as its options.

    Args:
        options: as a config has them.
        key: where they stand in the config, for the errors.

    Raises:
        ConfigError: an unknown method, an option of another method, or a value out of range.
    """
    name = options.get("name", DEFAULT_METHOD)
    if not isinstance(name, str) or name not in known_methods():
        raise ConfigError(f"{key}.name", f"{name!r} is not a method", nearest(str(name), known_methods()))
    with under(key):
        _refuse_others_options(name, options)
        try:
            method = known_methods()[name].model_validate({**options, "name": name})
        except ValidationError as error:
            raise as_config_error(error, "", known_methods()[name]) from error
        method.check()
        method.callbacks(_SECOND)  # a callback's options are checked together where it is made
    return method


def _name(method: type[Method]) -> str | None:
    """The default of the field ``name``; without one it is what several methods derive from."""
    field = method.model_fields["name"]
    return None if field.is_required() else field.default


def _refuse_others_options(name: str, options: Mapping[str, Any]) -> None:
    own = _options(name)
    for option in options.keys() - set(own):
        if new := _RENAMED.get(option):
            raise ConfigError(option, f"is called {new} now", f"{new}: {str(options[option]).lower()}")
        if owners := [other for other in sorted(known_methods()) if option in _options(other)]:
            right = (
                f"{name}'s options: {', '.join(own[1:]) or 'none'}; {option} is one of {', '.join(owners)}"
            )
            raise ConfigError(option, f"is not an option of {name}", right)


def _options(name: str) -> list[str]:
    return [field.alias or key for key, field in known_methods()[name].model_fields.items()]
