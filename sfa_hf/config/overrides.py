"""``key=value`` arguments: dotted keys, YAML values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sfa_hf.config.yaml_files import yaml_value
from sfa_hf.errors import ConfigError


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["method.beta=0.25", "sequence=[math, law]"]`` into nested mappings.

    Raises:
        ConfigError: an argument has no ``=`` or no key, its value is not YAML, or a key is set inside another
            argument's plain value.
    """
    overrides: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(argument, "is not an option", "key=value, e.g. method.beta=0.25")
        _set(overrides, key, yaml_value(key, text))
    return overrides


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``overrides`` on top: mappings are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in overrides.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _set(target: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(dotted, f"{parent!r} was given a plain value too", "one of the two")
    target[last] = value
