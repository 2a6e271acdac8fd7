"""Merge saved models into a new folder, a few blocks of each tensor at a time.

  sfa-hf merge average runs/merged
  sfa-hf merge configs/merges/ties.yaml runs/merged rule.lambda=0.5

RECIPE is a YAML file, or the name of a shipped one: there is one for each rule, and
docs/merging.md describes them. key=value sets any of its keys. OUT_DIR must not exist.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfa_hf.checkpoints import make_recipe, merge_checkpoints, read_recipe
from sfa_hf.checkpoints.recipe import Sections
from sfa_hf.commands.listing import Key, Section, first_line, keys_of
from sfa_hf.config.overrides import merged
from sfa_hf.config.paths import check_writable, expanded
from sfa_hf.rules import known_rules


def sections() -> list[Section]:
    """What a recipe may say."""
    names = tuple(known_rules())
    rule = Key("rule.name", "", None, "how the models become one.", names)
    sections = [Section("the recipe", (*keys_of(Sections, leave_out=("rule",)), rule))]
    for name, kind in known_rules().items():
        sections.append(Section(f"rule.name={name}", keys_of(kind, "rule"), first_line(kind)))
    return sections


def run(recipe: str, out_dir: str, overrides: dict[str, Any]) -> None:
    """Merge, and say how much and how long it took."""
    checked = make_recipe(_with_overrides(read_recipe(recipe), overrides))
    out = Path(expanded(out_dir, "OUT_DIR"))
    check_writable("OUT_DIR", out)
    begin = time.perf_counter()
    done = merge_checkpoints(checked, out, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - begin
    print(f"{out}: {len(done.merged)} tensors merged, {len(done.copied)} copied, ", end="")
    print(f"{done.parameters / 1e6:.1f} million parameters in {seconds:.1f} s")


def _with_overrides(values: dict[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    rule, wanted = values.get("rule"), overrides.get("rule")
    if (
        isinstance(rule, dict)
        and isinstance(wanted, dict)
        and wanted.get("name", rule.get("name")) != rule.get("name")
    ):
        values = {**values, "rule": {}}  # the options there are the other rule's
    return merged(values, overrides)
