"""Run one sequence of tasks with several methods and seeds; compare what they keep, learn and cost.

CONFIG is a YAML file, or the name of a shipped one: a run's config with methods and seeds.

  sfa-hf compare demo
  sfa-hf compare demo methods=[sequential,joint] seeds=[0]
  sfa-hf compare CONFIG 'methods=[sequential,{name: sfa, beta: [0.25,0.5]}]' output_dir=runs/two

Each run has its folder OUTPUT_DIR/METHOD/seed-SEED. The same command again continues an
interrupted run and leaves finished ones alone; the report covers every finished run under
OUTPUT_DIR. See docs/comparing.md.
"""

from __future__ import annotations

from typing import Any

from sfa_hf.commands.listing import Key, Section, keys_of
from sfa_hf.commands.sections import run_sections
from sfa_hf.comparison import carry_out, load_plan
from sfa_hf.comparison.plan import Keys
from sfa_hf.config.cli import is_first_process


def sections() -> list[Section]:
    """What a comparison's config may say."""
    base = Key("config", "path or name", "null", "a run's config that this one stands on top of.")
    return [Section("the comparison", (base, *keys_of(Keys, defaults={"seeds": [0]}))), *run_sections()]


def run(config: str, overrides: dict[str, Any]) -> None:
    """Carry the comparison out, and print its table, also when it is stopped."""
    plan = load_plan(config, overrides)
    try:
        carry_out(plan)
    finally:
        table = plan.output_dir / "comparison.md"
        if is_first_process() and table.is_file():
            print(table.read_text(encoding="utf-8"))
            print(f"report: {plan.output_dir / 'report.html'}")
