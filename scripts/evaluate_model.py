"""Score a model on one task or several.

usage: python scripts/evaluate_model.py MODEL task=math [key=value ...]
e.g.   python scripts/evaluate_model.py EleutherAI/pythia-160m task=[law,code] evaluation.limit=200
       accelerate launch scripts/evaluate_model.py runs/demo-sfa/2-code/model task=demo/math output_dir=scores
       python scripts/evaluate_model.py MODEL task=gsm8k evaluation.lm_eval.tasks=[gsm8k]     beside lm-eval

MODEL is a Hub id, a folder or builtin:pythia; a task is a name under configs/tasks/ or a YAML file. Other
keys: evaluation.*, data.* and model.dtype, as in a sequence's config; model.linearised=true for a folder of
a linearised model; output_dir, a folder for scores.json and one record a row (TASK.jsonl). Several processes
share the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfa_hf.config.cli import is_first_process, run_main
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import (
    EvaluationOptions,
    LmEvalOptions,
    TaskScore,
    check_tasks,
    evaluate_task,
    score_table,
)
from sfa_hf.evaluation.harness import Harness, check_lm_eval, lm_eval_table
from sfa_hf.files.atomic import read_json, write_json
from sfa_hf.linearised import load_linearised
from sfa_hf.models import load_model, resolve_model
from sfa_hf.sequence import parse_overrides
from sfa_hf.tasks import DataOptions, Task
from sfa_hf.tasks.named import named_tasks

USAGE = "scripts/evaluate_model.py MODEL task=math [key=value ...]"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(_Strict):
    """How the model is loaded; linearised: as the linearised model that saved it."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    linearised: bool = False


class Options(_Strict):
    """What may stand behind MODEL."""

    task: str | list[str]
    model: ModelOptions = Field(default_factory=ModelOptions)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)
    data: DataOptions = Field(default_factory=DataOptions)
    output_dir: str | None = None


def main(arguments: Sequence[str]) -> None:
    if not arguments or "=" in arguments[0] or arguments[0].startswith("-"):
        raise ConfigError("MODEL", "is missing", USAGE)
    options = checked(parse_overrides(arguments[1:]))
    tasks = find_tasks(options)
    if options.evaluation.lm_eval is not None:
        check_lm_eval(options.evaluation.lm_eval)
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        where = resolve_model(arguments[0])
        show(score_table(score(where, tasks, options, state)))
        if options.evaluation.lm_eval is not None:
            show(lm_eval_table(score_by_lm_eval(where, options, options.evaluation.lm_eval)))
    finally:
        state.destroy_process_group()


def show(table: str) -> None:
    if is_first_process():
        print(table)


def score(where: str, tasks: Sequence[Task], options: Options, state: PartialState) -> list[TaskScore]:
    load = load_linearised if options.model.linearised else load_model
    model, tokenizer = load(where, options.model.dtype)
    model.to(state.device)
    scores = [
        evaluate_task(
            model,
            tokenizer,
            task,
            options.data,
            options.evaluation,
            records_path=options.output_dir and Path(options.output_dir, f"{task.name}.jsonl"),
        )
        for task in tasks
    ]
    if is_first_process() and options.output_dir is not None:
        write_json(Path(options.output_dir, "scores.json"), [asdict(each) for each in scores])
    return scores


def score_by_lm_eval(where: str, options: Options, wanted: LmEvalOptions) -> dict[str, Any]:
    """What lm-eval finds, in its own processes; kept as lm_eval.json."""
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(options.output_dir or spare)
        harness = Harness(
            wanted, folder, Path(options.data.dir), options.model.dtype, options.evaluation.batch_size
        )
        harness.evaluate(where, folder / "lm_eval.json")
        return from_first_process(lambda: read_json(folder / "lm_eval.json", "run it again"))


def checked(values: dict[str, Any]) -> Options:
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, "", Options) from error


def find_tasks(options: Options) -> list[Task]:
    tasks = named_tasks(options.task, options.data.dir)
    for task in tasks:  # a bad file is found before the model is loaded
        task.heldout_rows(few_shot=options.evaluation.few_shot)
    check_tasks(tasks, options.evaluation)
    return tasks


if __name__ == "__main__":
    run_main(main)
