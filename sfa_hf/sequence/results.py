"""results.json: what a run found, in the one shape that every report reads."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from sfa_hf.sequence.run_folder import RunState
from sfa_hf.sequence.scores import summary

SCHEMA = 1
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "peft", "deepspeed", "lm_eval")


def results(resolved: Mapping[str, Any], state: RunState, found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json at this point; ``summary`` is None until the last row of scores is in.

    Args:
        resolved: the run's config.
        state: where the run stands.
        found: further keys, made from the files in the run's folder.
    """
    names = [task["name"] for task in resolved["sequence"]]
    finished = state.evaluated == len(names) + 1
    return {
        "schema": SCHEMA,
        "model": resolved["model"]["name_or_path"],
        "method": resolved["method"],
        "seed": resolved["seed"],
        "world_size": state.world_size,
        "engine": state.engine,
        "tasks": names,
        "metrics_used": state.metrics_used,
        "scores": state.scores,
        "stderr": state.stderr,
        "summary": summary(state.scores) if finished else None,
        "contamination": state.contamination,
        **found,
        "merges": state.merges,
        "curve": state.curve,
        "cost": state.cost,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that a result depends on, where installed."""
    installed = {dist.name.lower().replace("-", "_") for dist in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in ("sfa_hf", *LIBRARIES) if name in installed}
