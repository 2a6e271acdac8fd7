"""The task-sequence runner: train each task, keep its model, score every task, write it all down."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import TrainingArguments

from sfa_hf.config.paths import check_writable
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.engines.deepspeed.build_locks import warn_of_build_locks
from sfa_hf.engines.deepspeed.zero_init import saved_bytes
from sfa_hf.engines.placed import placed
from sfa_hf.errors import ConfigError, under
from sfa_hf.evaluation import check_tasks
from sfa_hf.evaluation.harness import check_lm_eval
from sfa_hf.files.atomic import folder_bytes
from sfa_hf.files.manifest import damage
from sfa_hf.hf_trainer.arguments import checkpoints_kept, training_arguments
from sfa_hf.hf_trainer.preemption import Preemption
from sfa_hf.methods import Preparation, Stage
from sfa_hf.models import resolve_model
from sfa_hf.sequence.claim import claimed, in_use
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.cost import raise_to_largest
from sfa_hf.sequence.disk import adapter_bytes, check_room, disk_need, safetensors_bytes
from sfa_hf.sequence.dry_run import dry_run
from sfa_hf.sequence.fingerprints import fingerprints, refuse_other_rows
from sfa_hf.sequence.keeping import keep_model, keep_same_model, maker
from sfa_hf.sequence.loading import Models
from sfa_hf.sequence.outcome import Outcome
from sfa_hf.sequence.run_folder import BROKEN, RunFolder, RunState
from sfa_hf.sequence.stage import TrainedTask, collect, train_task
from sfa_hf.sequence.trial_build import check_training
from sfa_hf.tasks import Contamination, contamination

logger = logging.getLogger(__name__)


def run_sequence(config: RunConfig) -> Path:
    """Run, continue or skip the sequence that ``config`` describes.

    Called on every process of a launch. An interrupted run continues from its newest whole checkpoint; a
    finished one is left as it is. The folder is locked meanwhile.

    Returns:
        The path of results.json.

    Raises:
        ConfigError: bad input, found before anything is written; or another launch is at this run.
        Preempted: SIGTERM was heard, and what a resume needs is on the disk.
    """
    check_run(config)
    with claimed(config.output_dir) as holder:
        if holder is not None:
            raise in_use(config.output_dir, holder)
        return run_claimed(config)


def check_run(config: RunConfig) -> None:
    """Read every row, and build what ``training`` configures, which starts the process group.

    Raises:
        ConfigError: the first thing that is wrong; nothing has been written.
    """
    check_writable("output_dir", config.output_dir)
    for task in config.tasks:
        task.check(config.evaluation.few_shot)
    check_tasks(config.tasks, config.evaluation)
    with under("method"):
        config.method.check_tasks(config.tasks)
    if config.evaluation.lm_eval is not None:
        check_lm_eval(config.evaluation.lm_eval)
    warn_of_build_locks(config.training[0])
    for task, values in zip(config.tasks, config.training, strict=True):
        own = f"sequence.{task.name}.training"
        keys = {name: f"{own if name in task.config.training else 'training'}.{name}" for name in values}
        check_training(values, keys, config.output_dir, config.seed)
    joined_processes()


def run_claimed(config: RunConfig) -> Path:
    """As :func:`run_sequence`, for a checked run whose folder this launch holds."""
    return _Run(config).run()


def joined_processes() -> PartialState:
    """The launch's processes, joined to one training.

    Raises:
        ConfigError: they are not, so that each would train a model of its own.
    """
    state, launched = PartialState(), int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        problem = f"{launched} processes were launched and {state.num_processes} joined this training"
        raise ConfigError("training.use_cpu", problem, "use_cpu=true on a machine without an accelerator")
    return state


def _first_state(config: RunConfig) -> RunState:
    """With what is known of the rows alone."""
    found = contamination(config.tasks, config.evaluation.limit)
    return RunState(rows=fingerprints(config.tasks), contamination=[asdict(each) for each in found])


class _Run:
    def __init__(self, config: RunConfig) -> None:
        self.config, self.method = config, config.method
        self.folder = RunFolder(config.output_dir, config.resolved)
        if config.overwrite:
            self.folder.check_replaceable()
        found = None if config.overwrite else self.folder.read()
        if found is not None:
            refuse_other_rows(config.tasks, found.rows)
        self.state = found or _first_state(config)
        self.continued = found is not None
        self.processes = joined_processes()
        self.outcome = Outcome(config, self.folder, self.state, self.processes)
        self.preemption = Preemption()

    def run(self) -> Path:
        with self.preemption.heard():
            self._check_models()
            if self.state.evaluated > len(self.config.tasks) and not self.outcome.missing_in_lm_eval():
                logger.info("%s is finished; nothing to do", self.folder.path)
                self.outcome.restore_results()
            else:
                self._continue()
        return self.folder.results_file

    def _continue(self) -> None:
        """Do what is left, from the beginning or from where an earlier launch ended."""
        self.state.world_size = self.processes.num_processes
        with self.processes.main_process_first():
            self.base = resolve_model(self.config.model.name_or_path)
        self.models = Models(self.base, self.config.model.dtype, self.config.model.peft)
        self.models.check(self._arguments(0), self.config.after_task, len(self.config.tasks))
        tasks = range(self.state.trained, len(self.config.tasks))
        adapters = self.config.model.peft
        model = dry_run(self.method, [self._stage(index) for index in tasks], self.base, adapters)
        self.adapter_bytes = None if adapters is None else adapter_bytes(model)
        if self.continued:
            logger.info("continuing %s after %d trained tasks", self.folder.path, self.state.trained)
        if self.state.trained:
            self._check_room(self._model_bytes(model), self._arguments(0))
        self._score_by_lm_eval()
        for row in range(self.state.evaluated, len(self.config.tasks) + 1):
            self._fill(row)
            self._score_by_lm_eval()

    def _check_models(self) -> None:
        """A kept model that decayed is the start of what comes after it: it is refused, never passed on."""
        for index, task in enumerate(self.config.tasks[: self.state.trained]):
            folder = self.folder.task_folder(index, task.name)
            for kept in (folder / "model", folder / "trained"):
                optional = kept.name == "trained" and not kept.exists()
                if not optional and (problem := damage(kept)):
                    raise ConfigError(str(kept), problem, BROKEN)

    def _fill(self, row: int) -> None:
        """Train task ``row - 1``, unless its model is there already, and score every task."""
        if row <= self.state.trained:
            self._score_saved(row)
        elif not self.method.trains(self._stage(row - 1)):
            keep_same_model(self._stage(row - 1))
            self.state.trained = row
            self.outcome.write_state()
            self.outcome.repeat_row(row)
        else:
            self._train_and_score(row)

    def _train_and_score(self, row: int) -> None:
        stage = self._stage(row - 1)
        live = self._is_kept_live(stage)
        with self._train(stage) as training:
            if live:
                self.outcome.score(training.trainer.model, training.trainer.processing_class, row)
        if not live:
            self._score_saved(row)

    def _is_kept_live(self, stage: Stage) -> bool:
        """Whether the weights that training leaves are the stage's model."""
        return maker(self.method, stage) is None and not self.method.finishes(stage)

    def _score_saved(self, row: int) -> None:
        """Score a saved model: the base, a merged one, or one that an earlier launch did not score."""
        arguments = self._arguments(max(row - 1, 0))
        model, tokenizer = self.models.load(self._weights(row))
        model = self.method.adapted(model, self.base)
        if row == 0:
            self._check_room(saved_bytes(model), arguments)
            self._create()  # only now: a model that cannot be loaded leaves nothing behind
        self.outcome.score(placed(model, arguments), tokenizer, row)
        del model
        collect()

    @contextmanager
    def _train(self, stage: Stage) -> Iterator[TrainedTask]:
        """Train a task and keep its model, which lives until the block ends."""
        logger.info("task %d of %d: %s", stage.index + 1, len(stage.tasks), stage.task.name)
        arguments = self._arguments(stage.index)
        self.method.prepare(self._preparation(stage, arguments))
        with ExitStack() as stack:
            with self.preemption.deferred():
                training = stack.enter_context(
                    train_task(stage, self.config, self.models, arguments, self.preemption)
                )
                self._keep(training, stage)
            yield training

    def _preparation(self, stage: Stage, arguments: TrainingArguments) -> Preparation:
        return Preparation(stage, arguments, self.config.data, self.models.load)

    def _keep(self, training: TrainedTask, stage: Stage) -> None:
        """Save the task's model under its final name, then note it in the state."""
        scoring = sum(point["seconds"] for point in training.curve)
        seconds = training.seconds - scoring
        finish = None
        if self.method.finishes(stage):
            finish = partial(self.method.finish, self._preparation(stage, training.trainer.args))
        keep_model(training.trainer, stage, maker(self.method, stage), seconds, finish)
        self.state.trained = stage.index + 1
        self.state.engine = training.engine
        self.state.merges += training.merges
        self.state.curve += training.curve
        cost = self.state.cost
        cost["train_seconds"] = cost.get("train_seconds", 0.0) + seconds
        cost["eval_seconds"] = cost.get("eval_seconds", 0.0) + scoring
        cost["merge_seconds"] = sum(merge["seconds"] for merge in self.state.merges)
        raise_to_largest(cost, extra_bytes=training.extra_bytes)
        self.outcome.write_state()

    def _score_by_lm_eval(self) -> None:
        """Evaluate the saved models that lm-eval has not seen yet."""
        for row in self.outcome.missing_in_lm_eval():
            self.outcome.score_by_lm_eval(row, self._weights(row))

    def _check_room(self, model_bytes: int, arguments: TrainingArguments) -> None:
        tasks = len(self.config.tasks)
        stages = [self._stage(index) for index in range(self.state.trained, tasks)]
        if self.adapter_bytes is None:
            models = sum(1 if self._is_kept_live(stage) else 2 for stage in stages)
        else:
            models = sum(self._makes_whole_model(stage) for stage in stages)
        itemsize = getattr(torch, self.config.model.dtype).itemsize
        kept = max(map(checkpoints_kept, self.config.training))
        statistics = self.method.STATISTICS * len(stages)
        need = disk_need(
            model_bytes,
            itemsize,
            models,
            kept,
            arguments,
            statistics=statistics,
            adapter=self.adapter_bytes,
            adapters=0 if self.adapter_bytes is None else 2 * len(stages),
        )
        check_room(self.folder.path, need, self._held_by_checkpoints())

    def _makes_whole_model(self, stage: Stage) -> bool:
        return self.config.after_task == "merge" or self.method.deployed(stage) is not None

    def _model_bytes(self, model: nn.Module) -> int:
        """Of a whole model in files: of the last one that was trained, or of one with adapters on "meta"."""
        if self.adapter_bytes is None:
            return safetensors_bytes(self._weights(self.state.trained))
        frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
        return frozen * int(getattr(torch, self.config.model.dtype).itemsize)

    def _held_by_checkpoints(self) -> int:
        """Bytes of the task that was being trained when an earlier launch ended."""
        index = self.state.trained
        if index == len(self.config.tasks):
            return 0
        folder = self.folder.task_folder(index, self.config.tasks[index].name)
        # One process looks: the first may go on, and tidy the folder up, while another still counts.
        return from_first_process(lambda: folder_bytes(folder))

    def _create(self) -> None:
        self.processes.wait_for_everyone()
        if self.processes.is_main_process and not self.continued:
            self.folder.create(overwrite=self.config.overwrite)
            for each in (Contamination(**values) for values in self.state.contamination):
                if each.exact or each.ngram:
                    logger.warning("%s", each)
        self.processes.wait_for_everyone()

    def _weights(self, row: int) -> str:
        """Folder of the model of one row of the score matrix."""
        return str(self._stage(row - 1).model) if row else self.base

    def _stage(self, index: int) -> Stage:
        folder = self.folder.task_folder(index, self.config.tasks[index].name)
        past = tuple(self._stage(earlier) for earlier in range(index))
        return Stage(
            index,
            self.config.tasks,
            self.base,
            folder,
            past,
            self.config.seed,
            self.config.after_task,
            self.config.model.dtype,
        )

    def _arguments(self, index: int) -> TrainingArguments:
        folder = self.folder.task_folder(index, self.config.tasks[index].name)
        return training_arguments(self.config.training[index], folder, self.config.seed)
