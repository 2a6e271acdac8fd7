"""Every name that a run writes into its folder: nothing else in there is ever removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sfa_hf.anchor import start_weights
from sfa_hf.errors import ConfigError
from sfa_hf.files.locks import INNER_LOCK
from sfa_hf.files.owned import Names
from sfa_hf.hf_trainer.saved_names import SHARDS, UNSEALED, saved_names
from sfa_hf.methods import make_method
from sfa_hf.methods.cmm import PRE_MERGE
from sfa_hf.methods.rehearsal import BUFFER
from sfa_hf.methods.slao import ORTHOGONAL
from sfa_hf.moments import folder as moments

_TENSORBOARD: Names = {r"events\.out\.tfevents\..+": None, r"[^.].*": {r"events\.out\.tfevents\..+": None}}


def run_names(config: Mapping[str, Any]) -> Names:
    """The names in the folder of a run with this resolved config."""
    tasks = [task["name"] for task in config["sequence"]]
    files = rf"({'|'.join(map(re.escape, tasks))})\.jsonl"
    return {
        r"config\.yaml|state(\.previous)?\.json|results\.json|report\.html|displacement\.json": None,
        re.escape(INNER_LOCK): None,
        r"plots": {r"scores\.png": None},
        r"records": {r"after-\d+": {files: None}},
        r"lm_eval": {r"after-\d+\.(json|log|job)": None},
        **{re.escape(f"{index}-{task}"): task_names(config["method"]) for index, task in enumerate(tasks)},
    }


def task_names(method: Mapping[str, Any]) -> Names:
    """The names in the folder of a task, whether it trains or has been trained.

    Args:
        method: its name and options.
    """
    kept: tuple[str, ...] = ()
    with suppress(ConfigError):  # a plugin that is not installed any more
        kept = make_method(method).KEEPS
    shards = (
        *(start_weights.FOLDER, start_weights.FORMER_FOLDER),
        *(moments.FOLDER, f"{moments.FOLDER}.in-use", moments.FORMER_FOLDER),
        *kept,
    )
    return {
        rf"model|trained|checkpoint-\d+|{PRE_MERGE}|{ORTHOGONAL}": saved_names,
        re.escape(BUFFER): None,
        r"|".join(map(re.escape, shards)): {**SHARDS, r"[0-9a-f]+": SHARDS},
        r"correction": {r"checkpoint-\d+": UNSEALED, **UNSEALED, r"runs": _TENSORBOARD},
        r"runs": _TENSORBOARD,
        r"trainer_state\.json|.+_results\.json": None,
    }
