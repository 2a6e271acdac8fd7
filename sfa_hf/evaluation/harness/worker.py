"""One of lm-eval's processes; :mod:`sfa_hf.evaluation.harness.launch` starts them with a job file."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from lm_eval import __version__, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from sfa_hf.distributed import clean_end
from sfa_hf.evaluation.statistics import RESAMPLES
from sfa_hf.files.adapter_folder import base_of, is_adapter
from sfa_hf.files.atomic import read_json, write_json


def main(job: Mapping[str, Any]) -> None:
    found = simple_evaluate(
        model=shared_model(job["model"], job["dtype"], job["batch_size"]),
        tasks=job["tasks"],
        num_fewshot=job["num_fewshot"],
        limit=job["limit"],
        task_manager=TaskManager(include_path=job["include_path"]),
        log_samples=False,
        bootstrap_iters=RESAMPLES,  # lm-eval's own 100,000 take minutes for an F1
    )
    if found is not None:  # on the first process
        write_json(Path(job["output"]), {"version": __version__, **tables(found)})


def shared_model(folder: str, dtype: str, batch_size: int) -> HFLM:
    """The model, which takes its share of the rows: lm-eval sees to that itself only where there are GPUs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = {"pretrained": folder}
    if is_adapter(folder):
        where = {"pretrained": base_of(folder, "model"), "peft": folder, "tokenizer": folder}
    model = HFLM(**where, dtype=dtype, batch_size=batch_size, device=device)
    state = PartialState()
    if model.world_size < state.num_processes:
        model._rank, model._world_size = state.process_index, state.num_processes
    return model


def tables(found: Mapping[str, Any]) -> dict[str, Any]:
    """Results by task and metric, with what tells one evaluation from another."""
    return {
        "results": {
            task: {metric: plain(value) for metric, value in scores.items()}
            for task, scores in found["results"].items()
        },
        "num_fewshot": dict(found["n-shot"]),
        "rows": {task: counts["effective"] for task, counts in found["n-samples"].items()},
        "task_versions": dict(found["versions"]),
    }


def plain(value: Any) -> Any:
    """JSON has no NaN: None stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    with clean_end():
        main(read_json(Path(sys.argv[1]), "the job that sfa_hf.evaluation.harness.launch wrote"))
