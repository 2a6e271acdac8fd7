"""Fine-tune a model on one task after another, and score every task before the first and after each.

CONFIG is a YAML file, or the name of a shipped one; key=value sets any of its keys, dotted:

  sfa-hf train demo
  sfa-hf train demo method.beta=0.5 training.learning_rate=1e-3 output_dir=runs/half
  accelerate launch scripts/train_sequence.py CONFIG method.name=ewc method.lambda=10

The same command again continues an interrupted run, and leaves a finished one alone.
"""

from __future__ import annotations

from typing import Any

from sfa_hf.commands.listing import Section
from sfa_hf.commands.sections import run_sections
from sfa_hf.config.cli import is_first_process
from sfa_hf.reports import read_run, side_by_side
from sfa_hf.sequence import load_config, run_sequence


def sections() -> list[Section]:
    """What a config may say."""
    return run_sections()


def run(config: str, overrides: dict[str, Any]) -> None:
    """Run the sequence, and print its scores."""
    checked = load_config(config, overrides)
    run_sequence(checked)
    if is_first_process():
        print(side_by_side([read_run(checked.output_dir)]))
        print(f"\nreport: {checked.output_dir / 'report.html'}")
