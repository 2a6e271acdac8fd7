"""What a run has found so far: scores, lm-eval's numbers, and the files that tell of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase

from sfa_hf.distributed.processes import from_first_process
from sfa_hf.evaluation import evaluate_task
from sfa_hf.files.atomic import write_json
from sfa_hf.reports import write_report
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.cost import note_peaks, timed
from sfa_hf.sequence.folder_results import from_files, harness
from sfa_hf.sequence.results import results
from sfa_hf.sequence.run_folder import RunFolder, RunState

logger = logging.getLogger(__name__)


class Outcome:
    """Scores models into a run's state, and writes state, results and report. Every call is collective.

    Args:
        config: the run's.
        folder: the run's.
        state: where the run stands; changed in place.
        processes: of the launch.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, state: RunState, processes: PartialState
    ) -> None:
        self._config, self._folder, self._state, self._processes = config, folder, state, processes
        self._lm_eval = harness(folder, config)

    def score(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, row: int) -> None:
        """Score every task that an earlier launch did not, and add the row to the matrix."""
        done = self._state.row
        for task in self._config.tasks[len(done) :]:
            with timed(self._state.cost, "eval_seconds"):
                records = self._folder.records_folder(row) / f"{task.name}.jsonl"
                score = evaluate_task(
                    model,
                    tokenizer,
                    task,
                    self._config.data,
                    self._config.evaluation,
                    records_path=records,
                )
            self._note_records(row, [task.name])
            done.append({"value": score.value, "stderr": score.stderr, "metric": score.metric})
            self.write_state()
        self._add_row(done)

    def repeat_row(self, row: int) -> None:
        """Add a row for a model that is the one of the row before."""
        if self._processes.is_main_process:
            before, records = self._folder.records_folder(row - 1), self._folder.records_folder(row)
            if before.is_dir():
                shutil.copytree(before, records, dirs_exist_ok=True)
        self._note_records(row, [task.name for task in self._config.tasks])
        last = zip(self._state.scores[-1], self._state.stderr[-1], self._config.tasks, strict=True)
        metrics = self._state.metrics_used
        self._add_row(
            [{"value": v, "stderr": e, "metric": metrics[task.name]} for v, e, task in last],
        )

    def _note_records(self, row: int, tasks: Sequence[str]) -> None:
        """Keep the hashes of what was just written."""
        self._state.records |= from_first_process(lambda: self._folder.record_hashes(row, tasks))

    def missing_in_lm_eval(self) -> list[int]:
        """Rows whose models lm-eval has not seen yet."""
        return [] if self._lm_eval is None else self._lm_eval.missing(self._state.evaluated)

    def score_by_lm_eval(self, row: int, weights: str) -> None:
        """Evaluate a saved model on lm-eval's tasks."""
        assert self._lm_eval is not None
        logger.info("lm-eval, after %d tasks", row)
        with timed(self._state.cost, "eval_seconds"):
            self._lm_eval.evaluate(weights, self._lm_eval.file(row))
        self.write_state()
        self._write_results()

    def write_state(self) -> None:
        """Replace state.json."""
        if self._processes.is_main_process:
            self._state.cost["stored_bytes"] = self._folder.stored_bytes()
            self._folder.write(self._state)
        self._processes.wait_for_everyone()

    def restore_results(self) -> None:
        """Write again what a crash kept from being written, or what was damaged since."""
        if from_first_process(self._results_differ):
            self._write_results()

    def _add_row(self, row: list[dict[str, Any]]) -> None:
        names = [task.name for task in self._config.tasks]
        self._state.scores.append([score["value"] for score in row])
        self._state.stderr.append([score["stderr"] for score in row])
        self._state.metrics_used = {name: score["metric"] for name, score in zip(names, row, strict=True)}
        self._state.row = []
        latest = zip(names, row, strict=True)
        logger.info("scores: %s", ", ".join(f"{n} {s['value']:.3f} ± {s['stderr']:.3f}" for n, s in latest))
        note_peaks(self._state.cost)
        self.write_state()
        self._write_results()

    def _write_results(self) -> None:
        from_first_process(self._write_results_here)

    def _write_results_here(self) -> None:
        write_json(self._folder.results_file, self._results())
        write_report(self._folder.path)

    def _results_differ(self) -> bool:
        wanted = {key: value for key, value in self._results().items() if key != "versions"}
        found = self._folder.read_results()
        return not self._folder.has_report or {key: found.get(key) for key in wanted} != wanted

    def _results(self) -> dict[str, Any]:
        found = from_files(self._folder, self._config, self._state)
        return results(self._config.resolved, self._state, found)
