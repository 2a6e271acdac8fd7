"""Merge saved models into a new folder, a few blocks of each tensor at a time.

usage: python scripts/merge_models.py RECIPE.yaml OUT_DIR [key=value ...]
e.g.   python scripts/merge_models.py configs/merges/ties.yaml runs/merged rule.lambda=0.5

Recipes are described in docs/merging.md; configs/merges/ holds one a rule. OUT_DIR must not exist.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfa_hf.checkpoints import make_recipe, merge_checkpoints, read_recipe
from sfa_hf.config.cli import run_main
from sfa_hf.config.overrides import merged, parse_overrides
from sfa_hf.errors import ConfigError

USAGE = "scripts/merge_models.py RECIPE.yaml OUT_DIR [key=value ...]"


def main(arguments: Sequence[str]) -> None:
    for place, name in enumerate(("RECIPE.yaml", "OUT_DIR")):
        if len(arguments) <= place or "=" in arguments[place] or arguments[place].startswith("-"):
            raise ConfigError(name, "is missing", USAGE)
    recipe = make_recipe(with_overrides(read_recipe(arguments[0]), arguments[2:]))
    begin = time.perf_counter()
    done = merge_checkpoints(recipe, Path(arguments[1]), progress=sys.stderr.isatty())
    seconds = time.perf_counter() - begin
    print(f"{arguments[1]}: {len(done.merged)} tensors merged, {len(done.copied)} copied, ", end="")
    print(f"{done.parameters / 1e6:.1f} million parameters in {seconds:.1f} s")


def with_overrides(values: dict[str, Any], arguments: Sequence[str]) -> Mapping[str, Any]:
    if not arguments:
        return values
    overrides = parse_overrides(arguments)
    rule, wanted = values.get("rule"), overrides.get("rule")
    if (
        isinstance(rule, dict)
        and isinstance(wanted, dict)
        and wanted.get("name", rule.get("name")) != rule.get("name")
    ):
        values = {**values, "rule": {}}  # the options there are the other rule's
    return merged(values, overrides)


if __name__ == "__main__":
    run_main(main)
