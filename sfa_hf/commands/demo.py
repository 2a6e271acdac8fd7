"""Math -> Law -> Code on a tiny built-in model, once plain and once with SFA, side by side.

  sfa-hf demo
  sfa-hf demo seed=1 output_dir=runs/demo-1

Takes a few minutes on two CPU cores, and any key of sfa-hf train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfa_hf.commands.listing import Key, Section
from sfa_hf.commands.sections import run_sections
from sfa_hf.config.paths import check_writable, expanded
from sfa_hf.config.shipped import shipped
from sfa_hf.reports import read_run, side_by_side, write_report
from sfa_hf.sequence import load_config, run_sequence

CONFIG = shipped() / "sequences" / "demo.yaml"
FOLDER = "runs/demo"


def sections() -> list[Section]:
    """Those of a run."""
    own = Key(
        "output_dir", "path", FOLDER, "holds both runs, in the folders sequential and sfa, and the report."
    )
    first, *others = run_sections()
    kept = tuple(key for key in first.keys if key.name != "output_dir")
    return [Section(first.title, (own, *kept)), *others]


def run(overrides: dict[str, Any]) -> None:
    """Run both methods, print their scores side by side, and write the report."""
    given = dict(overrides)
    folder = Path(expanded(str(given.pop("output_dir", FOLDER)), "output_dir"))
    check_writable("output_dir", folder)
    methods = {"sequential": {"name": "sequential"}, "sfa": {"name": "sfa", **given.pop("method", {})}}
    for name, method in methods.items():
        own = {"method": method, "output_dir": str(folder / name)}
        run_sequence(load_config(str(CONFIG), {**given, **own}))
    runs = [folder / name for name in methods]
    print(side_by_side([read_run(each) for each in runs]))
    print(f"\nreport: {write_report(folder, runs)}")
