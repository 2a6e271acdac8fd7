"""YAML files that a user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sfa_hf.errors import ConfigError


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError, which names the file, where there is none."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), "cannot be read", error.strerror or "a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            str(file), f"is not YAML: {error}", "see configs/sequences/ for examples"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(str(file), "holds no keys", "see configs/sequences/ for examples")
    return values
