"""The task-sequence runner: train each task, keep its model, score every task, write it all down."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import check_tasks, evaluate_task
from sfa_hf.files import folder_bytes, write_json
from sfa_hf.methods import Stage
from sfa_hf.models import resolve_model
from sfa_hf.reports import write_report
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.cost import note_peaks, timed
from sfa_hf.sequence.results import results
from sfa_hf.sequence.run_folder import RunFolder, RunState
from sfa_hf.sequence.stage import Trained, collect, loaded, placed, trained
from sfa_hf.sequence.training import training_arguments

logger = logging.getLogger(__name__)


def run_sequence(config: RunConfig) -> Path:
    """Run, continue or skip the sequence that ``config`` describes.

    Called on every process of a launch. An interrupted run continues at the task that was being trained;
    a finished one is left as it is.

    Returns:
        The path of results.json.

    Raises:
        ConfigError: bad input, found before anything is written.
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
            task.check()
        check_tasks(config.tasks, config.evaluation)
        self.config = config
        self.folder = RunFolder(config.output_dir, config.resolved)
        found = None if config.overwrite else self.folder.read()
        self.state = found or RunState()
        self.continued = found is not None
        self._arguments(0)  # refuses values that do not go together, and starts the process group
        self.processes = joined_processes()
        self.state.world_size = self.processes.num_processes

    def run(self) -> Path:
        last = len(self.config.tasks)
        if self.state.evaluated > last:
            logger.info("%s is finished; nothing to do", self.folder.path)
        else:
            self.base = self._base_model()
            if self.continued:
                logger.info("continuing %s after %d trained tasks", self.folder.path, self.state.trained)
            for row in range(self.state.evaluated, last + 1):
                self._fill(row)
        return self.folder.path / "results.json"

    def _fill(self, row: int) -> None:
        """Train task ``row - 1``, unless its model is there already, and score every task."""
        if row <= self.state.trained:
            self._score_saved(row)
            return
        with self._train(row - 1) as training:
            self._keep(training, row - 1)
            self._score(training.trainer.model, training.trainer.processing_class, row)

    def _score_saved(self, row: int) -> None:
        """Score the base model, or a task's model that an earlier launch trained and did not score."""
        arguments = self._arguments(max(row - 1, 0))
        model, tokenizer = loaded(self._weights(row), self.config.model.dtype)
        if row == 0:
            self._create()  # only now: a model that cannot be loaded leaves nothing behind
        self._score(placed(model, arguments), tokenizer, row)
        del model
        collect()

    def _train(self, index: int) -> AbstractContextManager[Trained]:
        task = self.config.tasks[index]
        folder = self.folder.task_folder(index, task.name)
        with self.processes.main_process_first():
            if self.processes.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # an interrupted task starts over
        logger.info("task %d of %d: %s", index + 1, len(self.config.tasks), task.name)
        stage = Stage(index=index, task=task.name, start=self._weights(index), folder=folder)
        return trained(stage, self.config, self._arguments(index))

    def _keep(self, training: Trained, index: int) -> None:
        """Save the task's model under its final name, then note it in the state."""
        name = self.config.tasks[index].name
        written = self.folder.task_folder(index, name) / "model.writing"
        training.trainer.save_model(str(written))
        self.state.trained = index + 1
        self.state.engine = training.engine
        self.state.merges += training.merges
        cost = self.state.cost
        cost["train_seconds"] = cost.get("train_seconds", 0.0) + training.seconds
        cost["merge_seconds"] = sum(merge["seconds"] for merge in self.state.merges)
        self.processes.wait_for_everyone()
        if self.processes.is_main_process:
            self.folder.adopt_model(written, index, name)
            self.folder.write(self.state)
        self.processes.wait_for_everyone()

    def _score(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, row: int) -> None:
        """Score every task and add the row to the matrix."""
        records = self.folder.records_folder(row)
        with timed(self.state.cost, "eval_seconds"):
            scores = [
                evaluate_task(
                    model,
                    tokenizer,
                    task,
                    self.config.data,
                    self.config.evaluation,
                    records_path=records / f"{task.name}.jsonl",
                )
                for task in self.config.tasks
            ]
        self.state.scores.append([score.value for score in scores])
        self.state.stderr.append([score.stderr for score in scores])
        self.state.metrics_used = {score.task: score.metric for score in scores}
        logger.info("scores: %s", ", ".join(f"{s.task} {s.value:.3f} ± {s.stderr:.3f}" for s in scores))
        note_peaks(self.state.cost)
        self._write()

    def _write(self) -> None:
        if self.processes.is_main_process:
            self.state.cost["stored_bytes"] = folder_bytes(self.folder.path)
            self.folder.write(self.state)
            write_json(self.folder.path / "results.json", results(self.config.resolved, self.state))
            write_report(self.folder.path)
        self.processes.wait_for_everyone()

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
