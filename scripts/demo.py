"""Math -> Law -> Code on a tiny built-in model, once plain and once with SFA, side by side.

usage: python scripts/demo.py [key=value ...]
e.g.   python scripts/demo.py seed=1 output_dir=runs/demo-1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfa_hf.config.cli import run_main
from sfa_hf.reports import read_run, side_by_side, write_report
from sfa_hf.sequence import load_config, parse_overrides, run_sequence

CONFIG = "configs/sequences/demo.yaml"


def main(arguments: Sequence[str]) -> None:
    overrides = parse_overrides(arguments)
    folder = Path(overrides.pop("output_dir", "runs/demo"))
    sfa_options = overrides.pop("method", {})
    methods = {"sequential": {"name": "sequential"}, "sfa": {"name": "sfa", **sfa_options}}
    for name, method in methods.items():
        run_sequence(load_config(CONFIG, {**overrides, "method": method, "output_dir": str(folder / name)}))
    runs = [folder / name for name in methods]
    print(side_by_side([read_run(run) for run in runs]))
    print(f"\nreport: {write_report(folder, runs)}")


if __name__ == "__main__":
    run_main(main)
