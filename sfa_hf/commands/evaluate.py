"""Score a model on one task or several.

  sfa-hf evaluate EleutherAI/pythia-160m task=[law,code] evaluation.limit=200
  sfa-hf evaluate MODEL task=gsm8k evaluation.lm_eval.tasks=[gsm8k]      beside lm-eval
  sfa-hf evaluate MODEL task=general base=EleutherAI/pythia-160m      what MODEL lost of it
  accelerate launch scripts/evaluate_model.py MODEL task=demo/math output_dir=scores

Several processes share the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field

from sfa_hf.commands.listing import Section, keys_of
from sfa_hf.commands.sections import data_section, evaluation_section
from sfa_hf.config.cli import is_first_process
from sfa_hf.config.paths import UserPath, check_writable
from sfa_hf.config.pydantic_errors import validated
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError, known_as
from sfa_hf.evaluation import (
    EvaluationOptions,
    LmEvalOptions,
    TaskScore,
    check_tasks,
    compare_folders,
    comparison_table,
    evaluate_task,
    nll_rise,
    read_records,
    score_table,
)
from sfa_hf.evaluation.harness import Harness, check_lm_eval, lm_eval_table
from sfa_hf.files.atomic import read_json, write_json
from sfa_hf.linearised import load_linearised
from sfa_hf.models import load_model, resolve_model
from sfa_hf.tasks import DataOptions, Task
from sfa_hf.tasks.named import named_tasks


class ModelOptions(BaseModel):
    """How the model is loaded.

    Attributes:
        dtype: of the weights.
        linearised: load a folder of a linearised model as the linearised model that saved it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    linearised: bool = False


class Options(BaseModel):
    """What may stand behind MODEL.

    Attributes:
        task: names of tasks, or YAML files.
        model: how the model is loaded.
        evaluation: as in a sequence's config.
        data: likewise.
        base: model that MODEL was trained from: it is scored on the same rows, and compared row by row.
        output_dir: folder for scores.json and one record for each row (TASK.jsonl); null: none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str | list[str]
    model: ModelOptions = Field(default_factory=ModelOptions)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)
    data: DataOptions = Field(default_factory=DataOptions)
    base: UserPath | None = None
    output_dir: UserPath | None = None


def sections() -> list[Section]:
    """What may stand behind MODEL."""
    own = keys_of(Options, leave_out=("evaluation", "data"))
    return [Section("keys", own), evaluation_section(), data_section()]


def run(model: str, overrides: dict[str, Any]) -> None:
    """Score, and print the tables."""
    options = validated(Options, overrides)
    tasks = _find_tasks(options)
    if options.base is not None and not options.evaluation.records:
        raise ConfigError("evaluation.records", "is false, and base compares records", "true, or no base")
    if options.output_dir is not None:
        check_writable("output_dir", Path(options.output_dir))
    if options.evaluation.lm_eval is not None:
        check_lm_eval(options.evaluation.lm_eval)
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        where = resolve_model(model)
        if options.base is None:
            _show(score_table(_score(where, tasks, options, state, options.output_dir)))
        else:
            _score_with_base(where, tasks, options, state)
        if options.evaluation.lm_eval is not None:
            _show(lm_eval_table(_score_by_lm_eval(where, options, options.evaluation.lm_eval)))
    finally:
        state.destroy_process_group()


def _show(table: str) -> None:
    if is_first_process():
        print(table)


def _score_with_base(where: str, tasks: Sequence[Task], options: Options, state: PartialState) -> None:
    """Score the base model too, and show what the model gained and lost against it."""
    with known_as({"model.name_or_path": "base"}):
        base = resolve_model(str(options.base))
    with tempfile.TemporaryDirectory() as spare:
        folder = options.output_dir or spare
        own = _score(where, tasks, options, state, folder)
        _score(base, tasks, options, state, str(Path(folder, "base")))
        if not is_first_process():
            return
        print(score_table(own), end="\n\n")
        print(f"{comparison_table(compare_folders(Path(folder, 'base'), Path(folder), (None, None)))}")
        for task in tasks:
            if task.config.scoring.kind == "perplexity":
                files = [Path(each, f"{task.name}.jsonl") for each in (Path(folder, "base"), folder)]
                rise, stderr = nll_rise(*map(read_records, files))
                amount = f"{rise:+.4f} ± {stderr:.4f} nats per token"
                print(f"{task.name}: forgetting {amount} against {options.base}")


def _score(
    where: str, tasks: Sequence[Task], options: Options, state: PartialState, folder: str | None
) -> list[TaskScore]:
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
            records_path=Path(folder, f"{task.name}.jsonl") if folder else None,
        )
        for task in tasks
    ]
    if is_first_process() and folder is not None:
        write_json(Path(folder, "scores.json"), [asdict(each) for each in scores])
    return scores


def _score_by_lm_eval(where: str, options: Options, wanted: LmEvalOptions) -> dict[str, Any]:
    """What lm-eval finds, in its own processes; kept as lm_eval.json."""
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(options.output_dir or spare)
        harness = Harness(
            wanted, folder, Path(options.data.dir), options.model.dtype, options.evaluation.batch_size
        )
        harness.evaluate(where, folder / "lm_eval.json")
        return from_first_process(lambda: read_json(folder / "lm_eval.json", "run it again"))


def _find_tasks(options: Options) -> list[Task]:
    tasks = named_tasks(options.task, options.data.dir)
    for task in tasks:  # a bad file is found before the model is loaded
        task.heldout_rows(few_shot=options.evaluation.few_shot)
    check_tasks(tasks, options.evaluation)
    return tasks
