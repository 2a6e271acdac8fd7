"""Run one sequence of tasks with several methods and seeds, and compare what they keep, learn and cost.

usage: accelerate launch scripts/compare_methods.py CONFIG.yaml [methods=[...]] [seeds=[...]] [key=value ...]
e.g.   accelerate launch scripts/compare_methods.py configs/comparisons/demo.yaml
       accelerate launch scripts/compare_methods.py configs/sequences/demo.yaml \
           'methods=[sequential,{name: sfa, beta: [0.25,0.5], p: [1,0.25]}]' seeds=[0,1] output_dir=runs/two

Each run has its folder OUTPUT_DIR/METHOD/seed-SEED. The same command again continues an interrupted run and
leaves finished ones alone; the report covers every finished run under OUTPUT_DIR. See docs/comparing.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.comparison import carry_out, load_plan
from sfa_hf.config.cli import is_first_process, run_main
from sfa_hf.errors import ConfigError
from sfa_hf.sequence import parse_overrides

USAGE = "scripts/compare_methods.py CONFIG.yaml [methods=[...]] [seeds=[...]] [key=value ...]"


def main(arguments: Sequence[str]) -> None:
    if not arguments or "=" in arguments[0] or arguments[0].startswith("-"):
        raise ConfigError("CONFIG.yaml", "is missing", USAGE)
    plan = load_plan(arguments[0], parse_overrides(arguments[1:]))
    try:
        carry_out(plan)
    finally:
        table = plan.output_dir / "comparison.md"
        if is_first_process() and table.is_file():
            print(table.read_text(encoding="utf-8"))
            print(f"report: {plan.output_dir / 'report.html'}")


if __name__ == "__main__":
    run_main(main)
