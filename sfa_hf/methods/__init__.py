"""Continual-learning methods: one file each, found by looking into this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.methods.base import Method, Preparation, Stage
from sfa_hf.registry import classes, plugins

__all__ = ["DEFAULT_METHOD", "Method", "Preparation", "Stage", "known_methods", "make_method"]

DEFAULT_METHOD = "sfa"


@cache
def known_methods() -> dict[str, type[Method]]:
    """Every method of this folder by the name that selects it in a config."""
    return plugins(__name__, classes(Method, _name))


def make_method(options: Mapping[str, Any]) -> Method:
    """Build the method that ``options["name"]`` selects, with the other entries as its options.

    Raises:
        ConfigError: an unknown method, an option of another method, or a value out of range.
    """
    name = options.get("name", DEFAULT_METHOD)
    if name not in known_methods():
        raise ConfigError("method.name", f"{name!r} is not a method", nearest(str(name), known_methods()))
    _refuse_others_options(str(name), options)
    try:
        method = known_methods()[name].model_validate({**options, "name": name})
    except ValidationError as error:
        raise as_config_error(error, "method", known_methods()[name]) from error
    method.check()
    return method


def _name(method: type[Method]) -> str | None:
    """The default of the field ``name``; without one it is what several methods derive from."""
    field = method.model_fields["name"]
    return None if field.is_required() else field.default


def _refuse_others_options(name: str, options: Mapping[str, Any]) -> None:
    own = _options(name)
    for option in options:
        owners = [other for other in sorted(known_methods()) if option in _options(other)]
        if option not in own and owners:
            right = (
                f"{name}'s options: {', '.join(own[1:]) or 'none'}; {option} is one of {', '.join(owners)}"
            )
            raise ConfigError(f"method.{option}", f"is not an option of {name}", right)


def _options(name: str) -> list[str]:
    return [field.alias or key for key, field in known_methods()[name].model_fields.items()]
