"""Training one task of a sequence, and holding a model that is only scored."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from sfa_hf import engines
from sfa_hf.averaging.averaging import ANCHOR_WEIGHT
from sfa_hf.errors import Diverged
from sfa_hf.evaluation.curve import ScoreEvery, curve
from sfa_hf.files.adapter_folder import is_adapter
from sfa_hf.hf_trainer.arguments import checkpoints_kept
from sfa_hf.hf_trainer.checkpoints import Checkpoint, CheckpointKeeper, check_resumable, newest_whole
from sfa_hf.hf_trainer.divergence import DivergenceWatch
from sfa_hf.hf_trainer.preemption import Preemption, StopAtStep
from sfa_hf.methods import Stage
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.loading import Models
from sfa_hf.sequence.run_names import task_names
from sfa_hf.tasks import collator, encode, rows_hash

logger = logging.getLogger(__name__)

_SCALE_AT_MINIMUM = "loss scale already at minimum"


@dataclass
class TrainedTask:
    """A task's model right after its last step, still where training left it.

    Attributes:
        trainer: holds the model, on its engine.
        seconds: wall time of ``train()``; the merges' share is in them, and that of the curve.
        merges: one record a merge, as in results.json.
        extra_bytes: what the method's callbacks kept in this process, such as anchors.
        curve: scores during the training, as in results.json.
    """

    trainer: Trainer
    seconds: float
    merges: list[dict[str, Any]]
    extra_bytes: int
    curve: list[dict[str, Any]]

    @property
    def engine(self) -> str:
        try:
            return engines.attach(self.trainer.model, self.trainer.optimizer).name
        except NotImplementedError:  # a method that merges nothing may train on an engine that cannot merge
            return str(self.trainer.accelerator.distributed_type.value).lower()


@contextmanager
def train_task(
    stage: Stage, config: RunConfig, models: Models, arguments: TrainingArguments, preemption: Preemption
) -> Iterator[TrainedTask]:
    """Train the stage's task from where the method starts it, or on from its newest whole checkpoint.

    The model lives until the block ends.
    """
    _save_whole_models(arguments)
    task, method = stage.task, config.method
    checkpoint = newest_whole(stage.folder, task_names(config.resolved["method"]))
    first = _first_weights(method.start(stage), checkpoint, arguments)
    model, tokenizer = models.load_to_train(stage, first)
    model = method.adapted(model, stage.base)
    rows, report = encode(method.rows(stage), tokenizer, config.data)
    logger.info("%s: %s", task.name, report.summary())
    facts = _facts(rows, arguments)
    if checkpoint is not None:
        check_resumable(checkpoint, facts)
        logger.info("%s: resuming after step %d", task.name, checkpoint.step)
    spent = checkpoint.facts["seconds"] if checkpoint else 0.0
    scorer = ScoreEvery(config.tasks, tokenizer, config.data, config.evaluation)
    keeper = CheckpointKeeper(facts, checkpoints_kept(config.training[stage.index]), spent)
    callbacks = method.callbacks(stage)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
        callbacks=[*callbacks, DivergenceWatch(), scorer, keeper, StopAtStep(preemption, task.name)],
    )
    started = time.perf_counter()
    with _names_known(), _known_as_diverged(trainer, task.name):
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    seconds = spent + time.perf_counter() - started
    try:
        history, steps = trainer.state.log_history, trainer.state.max_steps
        yield TrainedTask(
            trainer,
            seconds,
            merges=_merges(history, task.name, steps),
            curve=curve(history, task.name, steps, [each.name for each in config.tasks]),
            extra_bytes=sum(getattr(callback, "nbytes", 0) for callback in callbacks),
        )
    finally:
        trainer.accelerator.free_memory()
        del trainer, model
        collect()


def _first_weights(start: str, checkpoint: Checkpoint | None, arguments: TrainingArguments) -> str:
    """Where the model is loaded from before the Trainer resumes.

    The Trainer loads a checkpoint's tensors by their names in the file, and leaves those alone that the model
    has under another name in memory (GPT-NeoX's output head, in transformers 5.23): the model comes from the
    checkpoint itself, therefore. DeepSpeed restores what it saved, and PEFT its adapters, by names of their
    own.
    """
    whole = checkpoint is not None and not is_adapter(checkpoint.path)
    resumes_here = whole and arguments.deepspeed_plugin is None
    return str(checkpoint.path) if resumes_here and checkpoint else start


@contextmanager
def _names_known() -> Iterator[None]:
    """Without the Trainer's warnings of names that it did not find: the model came with those tensors."""
    trainers = logging.getLogger("transformers.trainer")
    trainers.addFilter(_is_not_of_names)
    try:
        yield
    finally:
        trainers.removeFilter(_is_not_of_names)


@contextmanager
def _known_as_diverged(trainer: Trainer, task: str) -> Iterator[None]:
    """Name the task in what is said of a divergence, DeepSpeed's fp16 loss scaler's words for it too."""
    try:
        yield
    except Diverged as error:
        raise Diverged(error.step, error.problem, task) from error
    except Exception as error:
        if _SCALE_AT_MINIMUM not in str(error):
            raise
        problem = "gradients are NaN or infinite at the smallest loss scale"
        raise Diverged(trainer.state.global_step + 1, problem, task) from error


def _is_not_of_names(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("There were missing keys in", "There were unexpected keys in"))


def _facts(rows: Dataset, arguments: TrainingArguments) -> dict[str, Any]:
    """What has to be the same again for a resumed training to end as it would have."""
    plugin = arguments.deepspeed_plugin
    samples = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return {
        "rows": rows_hash(rows),
        "zero": 0 if plugin is None else plugin.zero_stage,
        "processes": arguments.world_size,
        "samples": samples * arguments.world_size,
    }


def _save_whole_models(arguments: TrainingArguments) -> None:
    """ZeRO-3 writes a model file only where it is told to gather one, and the next task starts from it."""
    plugin = arguments.deepspeed_plugin
    if plugin is None:
        return
    zero = plugin.hf_ds_config.config.setdefault("zero_optimization", {})
    if zero.get("stage") == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True


def _merges(history: list[Mapping[str, Any]], task: str, steps: int) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "step": entry["step"],
            "of": steps,
            **{
                key: entry[f"sfa/{key}"]
                for key in ("beta", "drift_before", "drift_after", "seconds", "bytes")
            },
            # of a rule that gives each entry its own weight: the anchor's mean, by kind of parameter
            **({"anchor_weight": means} if (means := _below(f"{ANCHOR_WEIGHT}/", entry)) else {}),
        }
        for entry in history
        if "sfa/merge" in entry
    ]


def _below(prefix: str, entry: Mapping[str, Any]) -> dict[str, float]:
    return {key.removeprefix(prefix): value for key, value in entry.items() if key.startswith(prefix)}


def collect() -> None:
    """Give back the memory of a model that has just been dropped."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
