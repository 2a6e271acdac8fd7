"""The task-sequence runner: train each task, keep its model, score every task, write it all down."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from sfa_hf.engines.build_locks import warn_of_build_locks
from sfa_hf.engines.zero_init import saved_bytes
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import check_tasks, evaluate_task
from sfa_hf.evaluation.harness import check_lm_eval
from sfa_hf.evaluation.sharing import from_first_process
from sfa_hf.files import folder_bytes, write_json
from sfa_hf.methods import Stage
from sfa_hf.models import resolve_model
from sfa_hf.reports import write_report
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.cost import note_peaks, timed
from sfa_hf.sequence.disk import check_room, disk_need, safetensors_bytes
from sfa_hf.sequence.folder_results import from_files, harness
from sfa_hf.sequence.preemption import Preemption
from sfa_hf.sequence.results import results
from sfa_hf.sequence.run_folder import BROKEN, RunFolder, RunState
from sfa_hf.sequence.sealed import damage, seal
from sfa_hf.sequence.stage import Trained, collect, loaded, placed, trained
from sfa_hf.sequence.training import checkpoints_kept, training_arguments

logger = logging.getLogger(__name__)


def run_sequence(config: RunConfig) -> Path:
    """Run, continue or skip the sequence that ``config`` describes.

    Called on every process of a launch. An interrupted run continues from its newest whole checkpoint; a
    finished one is left as it is.

    Returns:
        The path of results.json.

    Raises:
        ConfigError: bad input, found before anything is written.
        Preempted: SIGTERM was heard, and what a resume needs is on the disk.
    """
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


class _Run:
    def __init__(self, config: RunConfig) -> None:
        for task in config.tasks:
            task.check(config.evaluation.few_shot)
        check_tasks(config.tasks, config.evaluation)
        if config.evaluation.lm_eval is not None:
            check_lm_eval(config.evaluation.lm_eval)
        self.config = config
        self.folder = RunFolder(config.output_dir, config.resolved)
        self.lm_eval = harness(self.folder, config)
        found = None if config.overwrite else self.folder.read()
        self.state = found or RunState()
        self.continued = found is not None
        warn_of_build_locks()
        self._arguments(0)  # refuses values that do not go together, and starts the process group
        self.processes = joined_processes()
        self.preemption = Preemption()

    def run(self) -> Path:
        with self.preemption.heard():
            self._check_models()
            if self._is_finished():
                logger.info("%s is finished; nothing to do", self.folder.path)
                self._restore_results()
            else:
                self._continue()
        return self.folder.results_file

    def _is_finished(self) -> bool:
        return self.state.evaluated > len(self.config.tasks) and not self._missing_in_lm_eval()

    def _continue(self) -> None:
        """Do what is left, from the beginning or from where an earlier launch ended."""
        self.state.world_size = self.processes.num_processes
        self.base = self._base_model()
        if self.continued:
            logger.info("continuing %s after %d trained tasks", self.folder.path, self.state.trained)
        if self.state.trained:
            self._check_room(safetensors_bytes(self._weights(self.state.trained)), self._arguments(0))
        self._score_by_lm_eval()
        for row in range(self.state.evaluated, len(self.config.tasks) + 1):
            self._fill(row)
            self._score_by_lm_eval()

    def _check_models(self) -> None:
        """A kept model that decayed is the start of what comes after it: it is refused, never passed on."""
        for index, task in enumerate(self.config.tasks[: self.state.trained]):
            folder = self.folder.model_folder(index, task.name)
            if problem := damage(folder):
                raise ConfigError(str(folder), problem, BROKEN)

    def _fill(self, row: int) -> None:
        """Train task ``row - 1``, unless its model is there already, and score every task."""
        if row <= self.state.trained:
            self._score_saved(row)
            return
        with self._train(row - 1) as training:
            self._score(training.trainer.model, training.trainer.processing_class, row)

    def _score_saved(self, row: int) -> None:
        """Score the base model, or a task's model that an earlier launch trained and did not score."""
        arguments = self._arguments(max(row - 1, 0))
        model, tokenizer = loaded(self._weights(row), self.config.model.dtype)
        if row == 0:
            self._check_room(saved_bytes(model), arguments)
            self._create()  # only now: a model that cannot be loaded leaves nothing behind
        self._score(placed(model, arguments), tokenizer, row)
        del model
        collect()

    @contextmanager
    def _train(self, index: int) -> Iterator[Trained]:
        """Train a task and keep its model, which lives until the block ends."""
        task = self.config.tasks[index]
        logger.info("task %d of %d: %s", index + 1, len(self.config.tasks), task.name)
        folder = self.folder.task_folder(index, task.name)
        stage = Stage(index=index, task=task.name, start=self._weights(index), folder=folder)
        with ExitStack() as stack:
            with self.preemption.deferred():
                training = stack.enter_context(
                    trained(stage, self.config, self._arguments(index), self.preemption)
                )
                self._keep(training, index)
            yield training

    def _keep(self, training: Trained, index: int) -> None:
        """Save the task's model under its final name, then note it in the state."""
        name = self.config.tasks[index].name
        written = self.folder.task_folder(index, name) / "model.writing"
        training.trainer.save_model(str(written))
        seal(written, {"task": name})
        self.state.trained = index + 1
        self.state.engine = training.engine
        self.state.merges += training.merges
        self.state.curve += training.curve
        cost = self.state.cost
        scoring = sum(point["seconds"] for point in training.curve)
        cost["train_seconds"] = cost.get("train_seconds", 0.0) + training.seconds - scoring
        cost["eval_seconds"] = cost.get("eval_seconds", 0.0) + scoring
        cost["merge_seconds"] = sum(merge["seconds"] for merge in self.state.merges)
        if self.processes.is_main_process:
            self.folder.adopt_model(written, index, name)
            self.folder.write(self.state)
        self.processes.wait_for_everyone()

    def _score(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, row: int) -> None:
        """Score every task that an earlier launch did not, and add the row to the matrix."""
        done = self.state.row
        for task in self.config.tasks[len(done) :]:
            with timed(self.state.cost, "eval_seconds"):
                records = self.folder.records_folder(row) / f"{task.name}.jsonl"
                score = evaluate_task(
                    model, tokenizer, task, self.config.data, self.config.evaluation, records_path=records
                )
            done.append({"value": score.value, "stderr": score.stderr, "metric": score.metric})
            self._write_state()
        self.state.scores.append([score["value"] for score in done])
        self.state.stderr.append([score["stderr"] for score in done])
        names = [task.name for task in self.config.tasks]
        self.state.metrics_used = {name: score["metric"] for name, score in zip(names, done, strict=True)}
        self.state.row = []
        latest = zip(names, done, strict=True)
        logger.info("scores: %s", ", ".join(f"{n} {s['value']:.3f} ± {s['stderr']:.3f}" for n, s in latest))
        note_peaks(self.state.cost)
        self._write_state()
        self._write_results()

    def _write_state(self) -> None:
        if self.processes.is_main_process:
            self.state.cost["stored_bytes"] = self.folder.stored_bytes()
            self.folder.write(self.state)
        self.processes.wait_for_everyone()

    def _write_results(self) -> None:
        if self.processes.is_main_process:
            write_json(self.folder.results_file, self._results())
            write_report(self.folder.path)
        self.processes.wait_for_everyone()

    def _restore_results(self) -> None:
        """Write again what a crash kept from being written, or what was damaged since."""
        if from_first_process(self._results_differ):
            self._write_results()

    def _results_differ(self) -> bool:
        wanted = {key: value for key, value in self._results().items() if key != "versions"}
        found = self.folder.read_results()
        return not self.folder.has_report or {key: found.get(key) for key in wanted} != wanted

    def _results(self) -> dict[str, Any]:
        return results(self.config.resolved, self.state, from_files(self.folder, self.config, self.state))

    def _missing_in_lm_eval(self) -> list[int]:
        return [] if self.lm_eval is None else self.lm_eval.missing(self.state.evaluated)

    def _score_by_lm_eval(self) -> None:
        """Evaluate the saved models that lm-eval has not seen yet."""
        for row in self._missing_in_lm_eval():
            assert self.lm_eval is not None
            logger.info("lm-eval, after %d tasks", row)
            with timed(self.state.cost, "eval_seconds"):
                self.lm_eval.evaluate(self._weights(row), self.lm_eval.file(row))
            self._write_state()
            self._write_results()

    def _check_room(self, model_bytes: int, arguments: TrainingArguments) -> None:
        tasks = len(self.config.tasks) - self.state.trained
        itemsize = getattr(torch, self.config.model.dtype).itemsize
        kept = max(map(checkpoints_kept, self.config.training))
        need = disk_need(model_bytes, itemsize, tasks, kept, arguments)
        check_room(self.folder.path, need, self._held_by_checkpoints())

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
        self.processes.wait_for_everyone()

    def _base_model(self) -> str:
        with self.processes.main_process_first():
            return resolve_model(self.config.model.name_or_path)

    def _weights(self, index: int) -> str:
        """Where the weights lie that task ``index`` starts from."""
        if index == 0:
            return self.base
        return str(self.folder.model_folder(index - 1, self.config.tasks[index - 1].name))

    def _arguments(self, index: int) -> TrainingArguments:
        folder = self.folder.task_folder(index, self.config.tasks[index].name)
        return training_arguments(self.config.training[index], folder, self.config.seed)
