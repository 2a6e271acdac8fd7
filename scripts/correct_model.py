"""Correct a merged model's features: one pass over the current task's rows trains a few parameters.

usage: python scripts/correct_model.py MERGED OUT_DIR teacher=FOLDER task=law [key=value ...]
e.g.   python scripts/correct_model.py runs/merged runs/corrected teacher=runs/law task=law past=[math]

MERGED and teacher are folders or Hub ids: the teacher is the model before the merge, or the previous task's.
Prints the distance of the features from the teacher's on held-out rows, of the current and of past tasks, and
every task's score, before and after. Other keys: loss (l2 or l1), layer, parameters (a regular expression),
learning_rate (1e-7), training.* (TrainingArguments), rows (held-out rows to measure on), evaluation.*, data.*
and model.dtype, as in a sequence's config. OUT_DIR must not exist.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from sfa_hf.config.cli import is_first_process, run_main
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.correction import Mismatch, correct, feature_mismatch
from sfa_hf.correction.correct import LEARNING_RATE
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import EvaluationOptions, check_tasks, evaluate_task
from sfa_hf.files.atomic import write_json
from sfa_hf.hf_trainer.arguments import check_training
from sfa_hf.models import load_model
from sfa_hf.reports.table import aligned
from sfa_hf.sequence import parse_overrides
from sfa_hf.tasks import DataOptions, Task, encode
from sfa_hf.tasks.named import named_tasks

USAGE = "scripts/correct_model.py MERGED OUT_DIR teacher=FOLDER task=law [key=value ...]"
REPORT = "correction.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(_Strict):
    """How the models are loaded."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Options(_Strict):
    """What may stand behind OUT_DIR."""

    teacher: str
    task: str
    past: list[str] = []
    loss: Literal["l1", "l2"] = "l2"
    layer: int = -1
    parameters: str | None = None
    learning_rate: float = Field(default=LEARNING_RATE, gt=0)
    rows: int = Field(default=200, gt=0)
    training: dict[str, Any] = {}
    model: ModelOptions = ModelOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    data: DataOptions = DataOptions()


def main(arguments: Sequence[str]) -> None:
    for place, name in enumerate(("MERGED", "OUT_DIR")):
        if len(arguments) <= place or "=" in arguments[place] or arguments[place].startswith("-"):
            raise ConfigError(name, "is missing", USAGE)
    out = Path(arguments[1])
    if out.exists():
        raise ConfigError("OUT_DIR", f"{out} exists", "a new folder")
    options = checked(parse_overrides(arguments[2:]))
    tasks = named_tasks([options.task, *options.past], options.data.dir)
    tasks[0].check()
    for task in tasks[1:]:
        task.heldout_rows(options.rows)
    check_tasks(tasks, options.evaluation)
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        corrected(arguments[0], out, options, tasks, state)
    finally:
        state.destroy_process_group()


def checked(values: dict[str, Any]) -> Options:
    try:
        options = Options.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, "", Options) from error
    training = check_training(options.training)
    return options.model_copy(update={"training": training})


def corrected(merged: str, out: Path, options: Options, tasks: list[Task], state: PartialState) -> None:
    model, tokenizer = load_model(merged, options.model.dtype)
    try:
        teacher, _ = load_model(options.teacher, options.model.dtype)
    except ConfigError as error:
        raise ConfigError("teacher", error.problem, error.right) from error
    model.to(state.device)
    teacher.to(state.device)
    before = measured(model, teacher, tokenizer, tasks, options)
    rows, _ = encode(tasks[0].train_rows(), tokenizer, options.data)
    with tempfile.TemporaryDirectory() as spare:
        done = correct(
            model,
            teacher,
            rows,
            tokenizer,
            spare,
            parameters=options.parameters,
            loss=options.loss,
            layer=options.layer,
            learning_rate=options.learning_rate,
            **options.training,
        )
    after = measured(model, teacher, tokenizer, tasks, options)
    if is_first_process():
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        found = {"parameters": done.parameters, "steps": done.steps, "before": before, "after": after}
        write_json(out / REPORT, found)
        print(f"{done.steps} steps on {', '.join(done.parameters)}")
        print(table(before, after))
    state.wait_for_everyone()


def measured(
    model: nn.Module, teacher: nn.Module, tokenizer: Any, tasks: list[Task], options: Options
) -> dict[str, dict[str, float]]:
    """Of every task: distance of the features from the teacher's, and the score."""
    found = {}
    for task in tasks:
        rows, _ = encode(task.heldout_rows(options.rows), tokenizer, options.data)
        distance: Mismatch = feature_mismatch(model, teacher, rows, tokenizer, layer=options.layer)
        score = evaluate_task(model, tokenizer, task, options.data, options.evaluation)
        found[task.name] = {"distance": distance.mean, "relative": distance.relative, "score": score.value}
    return found


def table(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> str:
    header = ("task", "distance", "after", "relative", "after", "score", "after")
    lines = [
        (name, *(f"{each[name][key]:.4f}" for key in values for each in (before, after)))
        for name, values in before.items()
    ]
    return "\n".join(aligned([header, *lines]))


if __name__ == "__main__":
    run_main(main)
