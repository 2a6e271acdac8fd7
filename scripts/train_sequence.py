"""Fine-tune a model on one task after another and score every task after each.

usage: accelerate launch [ACCELERATE OPTIONS] scripts/train_sequence.py CONFIG.yaml [key=value ...]
e.g.   accelerate launch scripts/train_sequence.py configs/sequences/demo.yaml method.beta=0.25

The same command again continues an interrupted run and leaves a finished one alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfa_hf.config.cli import is_first_process, run_main
from sfa_hf.errors import ConfigError
from sfa_hf.reports import read_run, side_by_side
from sfa_hf.sequence import load_config, parse_overrides, run_sequence


def main(arguments: Sequence[str]) -> None:
    if not arguments or "=" in arguments[0] or arguments[0].startswith("-"):
        raise ConfigError(
            "CONFIG.yaml", "is missing", "scripts/train_sequence.py CONFIG.yaml [key=value ...]"
        )
    config = load_config(arguments[0], parse_overrides(arguments[1:]))
    run_sequence(config)
    if is_first_process():
        print(side_by_side([read_run(config.output_dir)]))
        print(f"\nreport: {config.output_dir / 'report.html'}")


if __name__ == "__main__":
    run_main(main)
