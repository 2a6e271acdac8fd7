"""Correct a merged model's features: one pass over the current task's rows trains a few parameters.

  sfa-hf correct runs/merged runs/corrected teacher=runs/law task=law past=[math]

MERGED and teacher are folders or Hub ids: the teacher is the model before the merge, or the
previous task's. Prints the distance of the features from the teacher's on held-out rows, of the
current and of past tasks, and every task's score, before and after. OUT_DIR must not exist.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from sfa_hf.commands.listing import Section, keys_of
from sfa_hf.commands.sections import data_section, evaluation_section, training_section
from sfa_hf.config.cli import is_first_process
from sfa_hf.config.options import Index, Pattern, Rate
from sfa_hf.config.paths import UserPath, check_writable, expanded
from sfa_hf.config.pydantic_errors import validated
from sfa_hf.correction import Mismatch, correct, feature_mismatch
from sfa_hf.correction.correct import LEARNING_RATE, Loss
from sfa_hf.errors import ConfigError, known_as
from sfa_hf.evaluation import EvaluationOptions, check_tasks, evaluate_task
from sfa_hf.files.atomic import write_json
from sfa_hf.hf_trainer.arguments import read_training
from sfa_hf.models import load_model
from sfa_hf.reports.table import aligned
from sfa_hf.tasks import DataOptions, Task, encode
from sfa_hf.tasks.named import named_tasks

REPORT = "correction.json"


class ModelOptions(BaseModel):
    """How the models are loaded.

    Attributes:
        dtype: of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Options(BaseModel):
    """What may stand behind OUT_DIR.

    Attributes:
        teacher: folder or Hub id of the model whose features are wanted.
        task: name or YAML file of the current task, whose rows are trained on.
        past: tasks to measure on too.
        loss: between the features.
        layer: position in hidden_states of the features; -1 is what the output head reads.
        parameters: regular expression on names: what is trained; null: what the features pass last.
        learning_rate: of AdamW.
        rows: held-out rows of each task to measure on.
        training: fields of TrainingArguments.
        model: how the models are loaded.
        evaluation: as in a sequence's config.
        data: likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    teacher: UserPath
    task: str
    past: list[str] = []
    loss: Loss = "l2"
    layer: Index = -1
    parameters: Pattern | None = None
    learning_rate: Rate = LEARNING_RATE
    rows: int = Field(default=200, gt=0)
    training: dict[str, Any] = {}
    model: ModelOptions = ModelOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    data: DataOptions = DataOptions()


def sections() -> list[Section]:
    """What may stand behind OUT_DIR."""
    own = keys_of(Options, leave_out=("training", "evaluation", "data"))
    return [Section("keys", own), evaluation_section(), data_section(), training_section()]


def run(merged: str, out_dir: str, overrides: dict[str, Any]) -> None:
    """Correct, save, and print the distances and scores before and after."""
    out = Path(expanded(out_dir, "OUT_DIR"))
    if out.exists():
        raise ConfigError("OUT_DIR", f"{out} exists", "a new folder")
    check_writable("OUT_DIR", out)
    options = validated(Options, overrides)
    options = options.model_copy(update={"training": read_training(options.training)})
    tasks = named_tasks([options.task, *options.past], options.data.dir)
    tasks[0].check()
    for task in tasks[1:]:
        task.heldout_rows(options.rows)
    check_tasks(tasks, options.evaluation)
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        _corrected(merged, out, options, tasks, state)
    finally:
        state.destroy_process_group()


def _corrected(merged: str, out: Path, options: Options, tasks: list[Task], state: PartialState) -> None:
    model, tokenizer = load_model(merged, options.model.dtype)
    with known_as("teacher"):
        teacher, _ = load_model(options.teacher, options.model.dtype)
    model.to(state.device)
    teacher.to(state.device)
    before = _measured(model, teacher, tokenizer, tasks, options)
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
    after = _measured(model, teacher, tokenizer, tasks, options)
    if is_first_process():
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        found = {"parameters": done.parameters, "steps": done.steps, "before": before, "after": after}
        write_json(out / REPORT, found)
        print(f"{done.steps} steps on {', '.join(done.parameters)}")
        print(_table(before, after))
    state.wait_for_everyone()


def _measured(
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


def _table(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> str:
    header = ("task", "distance", "after", "relative", "after", "score", "after")
    lines = [
        (name, *(f"{each[name][key]:.4f}" for key in values for each in (before, after)))
        for name, values in before.items()
    ]
    return "\n".join(aligned([header, *lines]))
