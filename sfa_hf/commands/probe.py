"""Loss, score and features along the path between two checkpoints of one architecture.

  sfa-hf probe BEFORE AFTER task=[demo/math,demo/law] evaluation.limit=100
  ... fisher.a=FOLDER fisher.b=FOLDER fisher.power=1      beside merging by optimizer state
  ... models.merged=FOLDER models.corrected=FOLDER        other checkpoints, as levels

output_dir gets probe.json, written after every point, and the plots; the same command goes on
with what is there. Several processes share the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sfa_hf.commands.listing import Section, keys_of
from sfa_hf.commands.sections import data_section, evaluation_section
from sfa_hf.config.cli import is_first_process
from sfa_hf.config.paths import check_writable
from sfa_hf.config.pydantic_errors import validated
from sfa_hf.probing import ProbeOptions, run_probe
from sfa_hf.reports.table import aligned

FOLDER = "runs/probe"


def sections() -> list[Section]:
    """What may stand behind A and B."""
    own = keys_of(ProbeOptions, leave_out=("evaluation", "data"), defaults={"output_dir": FOLDER})
    return [Section("keys", own), evaluation_section(), data_section()]


def run(a: str, b: str, overrides: dict[str, Any]) -> None:
    """Measure, draw, and print a line for each point."""
    options = validated(ProbeOptions, {"output_dir": FOLDER, **overrides})
    check_writable("output_dir", Path(options.output_dir))
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        found = run_probe(a, b, options, state.device)
    finally:
        state.destroy_process_group()
    if is_first_process():
        print(_table(found))
        print(f"plots and probe.json are in {options.output_dir}")


def _table(found: dict[str, Any]) -> str:
    """One line for each point, by the weight of B."""
    tasks = found["tasks"]
    header = ["point", *(f"{task} {what}" for task in tasks for what in ("loss", "score"))]
    rows = sorted(found["points"].items(), key=lambda pair: _place(pair[1]))
    lines = [
        [key, *(f"{each['tasks'][task][what]:.4f}" for task in tasks for what in ("loss", "score"))]
        for key, each in rows
    ]
    return "\n".join(aligned([header, *lines]))


def _place(point: dict[str, Any]) -> tuple[str, float]:
    return {"linear": "0", "fisher": "1"}.get(point["curve"], "2"), point["alpha"] or 0.0
