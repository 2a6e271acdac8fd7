"""Continual-learning methods: one file each, found by looking into this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.methods.base import Method, Preparation, Stage

__all__ = ["DEFAULT_METHOD", "Method", "Preparation", "Stage", "known_methods", "make_method"]

DEFAULT_METHOD = "sfa"


@cache
def known_methods() -> dict[str, type[Method]]:
    """Every method of this folder by the name that selects it in a config."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    named = [cls for cls in _below(Method) if not cls.model_fields["name"].is_required()]
    return {cls.model_fields["name"].default: cls for cls in named}


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


def _below(cls: type[Method]) -> Iterator[type[Method]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _below(subclass)


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
