"""Loss, score and features along the path between two checkpoints of one architecture.

usage: python scripts/probe_path.py A B task=law [key=value ...]
e.g.   python scripts/probe_path.py BEFORE AFTER task=[demo/math,demo/law] evaluation.limit=100
       ... fisher.a=BEFORE_FISHER fisher.b=AFTER_FISHER fisher.power=1     beside merging by optimizer state
       ... models.merged=FOLDER models.corrected=FOLDER                    other checkpoints, as levels

Keys: points=11 from 0 to 1; beyond=0.2, how far behind both ends; features.rows=64 and features.layer=-1, or
features=null; model.dtype; model.linearised_at=FOLDER; evaluation.* and data.* as in a sequence's config.
output_dir (runs/probe) gets probe.json, written after every point, and the plots; the same command goes on
with what is there. Several processes share the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import PartialState
from pydantic import ValidationError

from sfa_hf.config.cli import is_first_process, run_main
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError
from sfa_hf.probing import ProbeOptions, run_probe
from sfa_hf.reports.table import aligned
from sfa_hf.sequence import parse_overrides

USAGE = "scripts/probe_path.py A B task=law [key=value ...]"


def main(arguments: Sequence[str]) -> None:
    for place, name in enumerate("AB"):
        if len(arguments) <= place or "=" in arguments[place] or arguments[place].startswith("-"):
            raise ConfigError(name, "is missing", USAGE)
    options = checked({"output_dir": "runs/probe", **parse_overrides(arguments[2:])})
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        found = run_probe(arguments[0], arguments[1], options, state.device)
    finally:
        state.destroy_process_group()
    if is_first_process():
        print(table(found))
        print(f"plots and probe.json are in {options.output_dir}")


def checked(values: dict[str, Any]) -> ProbeOptions:
    try:
        return ProbeOptions.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, "", ProbeOptions) from error


def table(found: dict[str, Any]) -> str:
    """One line a point, by the weight of B."""
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


if __name__ == "__main__":
    run_main(main)
