"""Continual-learning methods: one file each, found by looking into this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError, nearest, under
from sfa_hf.methods.base import Method, Preparation, Stage

__all__ = ["DEFAULT_METHOD", "Method", "Preparation", "Stage", "known_methods", "make_method"]

DEFAULT_METHOD = "sfa"
_RENAMED = dict.fromkeys(("average_first_task", "merge_first_task", "penalise_first_task"), "first_task")
_FIRST = Stage(index=0, tasks=(), base="base", folder=Path("0"))
_SECOND = Stage(index=1, tasks=(), base="base", folder=Path("1"), past=(_FIRST,))


@cache
def known_methods() -> dict[str, type[Method]]:
    """Every method of this folder by the name that selects it in a config."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    named = [cls for cls in _below(Method) if not cls.model_fields["name"].is_required()]
    return {cls.model_fields["name"].default: cls for cls in named}


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


def _below(cls: type[Method]) -> Iterator[type[Method]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _below(subclass)


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
