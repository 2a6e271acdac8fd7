"""A merge of saved models, streamed: a few blocks of each tensor in memory, whatever the models' size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sfa_hf.checkpoints.configs import check_configs
from sfa_hf.checkpoints.folder import SavedModel, open_model
from sfa_hf.checkpoints.heap import keep_freed_blocks
from sfa_hf.checkpoints.output import TensorFiles, new_folder, refuse_existing
from sfa_hf.checkpoints.plan import Job, Plan
from sfa_hf.checkpoints.recipe import Recipe
from sfa_hf.checkpoints.side_files import copy_side_files
from sfa_hf.checkpoints.vocabulary import check_tokenizers
from sfa_hf.config.yaml_files import yaml_text
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import write_atomic
from sfa_hf.files.safetensors_slices import FLOATS, item_bytes
from sfa_hf.rules import BLOCK, MergeRule, Survey, conclude_survey

RECIPE_FILE = "merge.yaml"


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        merged: names of the tensors that were merged.
        copied: names of those that were taken over.
        parameters: entries of all of them.
    """

    merged: tuple[str, ...]
    copied: tuple[str, ...]
    parameters: int


def merge_checkpoints(recipe: Recipe, out: Path, *, progress: bool = False) -> Merged:
    """Merge the models of a recipe into the new folder ``out``, loadable by ``from_pretrained``.

    Args:
        recipe: what and how, from :func:`sfa_hf.checkpoints.make_recipe`.
        out: the folder; must not exist. It appears when everything in it is on disk.
        progress: show a bar on standard error.

    Raises:
        ConfigError: something about the models or the folder; nothing has been written.
    """
    refuse_existing(out)
    with ExitStack() as stack:
        plan, reference = _planned(recipe, stack)
        specs = {job.name: (job.dtype, job.shape) for job in plan.jobs}
        with new_folder(out) as folder:
            with TensorFiles(folder, specs, recipe.max_shard_size) as files:
                _Work(recipe, plan.jobs, files, progress=progress).run()
            copy_side_files(reference, folder, rows=plan.rows, dtype=recipe.dtype)
            write_atomic(folder / RECIPE_FILE, yaml_text(recipe.resolved))
    merged = tuple(job.name for job in plan.jobs if job.rule)
    copied = tuple(job.name for job in plan.jobs if not job.rule)
    return Merged(merged, copied, sum(job.numel for job in plan.jobs))


def check_checkpoints(recipe: Recipe) -> None:
    """Open the models of a recipe and plan the merge, without doing it.

    Raises:
        ConfigError: something about the models.
    """
    with ExitStack() as stack:
        _planned(recipe, stack)


def _planned(recipe: Recipe, stack: ExitStack) -> tuple[Plan, SavedModel]:
    """The jobs, and the model whose names, config and tokenizer the output has."""
    base = None if recipe.base is None else open_model(recipe.base, "base", stack)
    models = [
        open_model(each.path, f"models.{i}", stack, each.fisher) for i, each in enumerate(recipe.models)
    ]
    inputs = [*filter(None, [base]), *models]
    reference = next((each for each in inputs if each.source == recipe.config_from), inputs[0])
    if recipe.tokenizer == "same":
        check_tokenizers(inputs)
    plan = Plan(recipe, models, base, reference, _tied_names)
    if recipe.configs == "same":  # after names and shapes, which say more
        check_configs(inputs, layers=recipe.missing == "refuse")
    return plan, reference


def _tied_names(model: SavedModel) -> dict[str, str]:
    from sfa_hf.checkpoints.tied import tied_names  # noqa: PLC0415 - seconds that most merges save

    return tied_names(model)


class _Work:
    """All jobs of a plan, the largest first, on several threads."""

    def __init__(self, recipe: Recipe, jobs: Sequence[Job], files: TensorFiles, *, progress: bool) -> None:
        self._recipe, self._files = recipe, files
        self._jobs = sorted(jobs, key=lambda job: -job.numel)
        self._threads = recipe.threads or len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._shared: Survey | None = None
        self._bar = tqdm(total=0, unit="param", unit_scale=True, disable=not progress, delay=0.5)

    def run(self) -> None:
        keep_freed_blocks()
        with (
            self._bar,
            _one_thread_each() as start,
            ThreadPoolExecutor(self._threads, initializer=start) as pool,
        ):
            if self._recipe.rule.scope == "vector":
                self._survey_all(pool)
            self._bar.total = self._bar.n + sum(job.numel for job in self._jobs)
            _all(pool, self._do, self._jobs)

    def _survey_all(self, pool: ThreadPoolExecutor) -> None:
        """Conclude the one survey of the whole vector."""
        jobs = [job for job in self._jobs if job.rule]
        numel = sum(job.merged for job in jobs)
        survey = self._recipe.rule.survey(len(jobs[0].models), numel, jobs[0].arithmetic)
        passes = survey.passes if survey else 0
        self._bar.total = numel * passes + sum(job.numel for job in self._jobs)
        for _ in range(passes):
            assert survey is not None
            survey.conclude(self._total(pool, survey, jobs))
        self._shared = survey

    def _total(self, pool: ThreadPoolExecutor, survey: Survey, jobs: Sequence[Job]) -> Tensor:
        totals: list[Tensor] = []

        def measure(job: Job) -> None:
            for block in job.blocks():
                measured = survey.measure(block)
                with self._lock:
                    totals[:] = [totals[0].add_(measured)] if totals else [measured]
                self._advance(block.models[0].numel())

        _all(pool, measure, jobs)
        return totals[0]

    def _do(self, job: Job) -> None:
        if job.rule is not None and job.merged:
            self._merge(job, job.rule)
        self._copy(job, job.merged)

    def _merge(self, job: Job, rule: MergeRule) -> None:
        survey = self._shared
        if rule.scope == "tensor":
            survey = rule.survey(len(job.models), job.merged, job.arithmetic)
            conclude_survey(survey, job.blocks)
        for block in job.blocks():
            result = rule.merge(block, survey).to(FLOATS[job.dtype])
            if not result.sum(dtype=torch.float64).isfinite():
                problem = f"{job.name} becomes NaN or infinite as {job.dtype}"
                right = "finite weights, and an option dtype that is wide enough"
                raise ConfigError("models", problem, right)
            self._files.write(job.name, block.offset * result.element_size(), result)
            self._advance(result.numel())

    def _copy(self, job: Job, first: int) -> None:
        """Take entries from ``first`` on from the reference, in the output's dtype."""
        source, size = job.reference, item_bytes(job.dtype)
        for begin in range(first, job.numel, BLOCK):
            end = min(begin + BLOCK, job.numel)
            if job.dtype == source.dtype:
                data = source.read_bytes(begin * size, end * size)
            else:
                data = source.read(begin, end).to(FLOATS[job.dtype])
            self._files.write(job.name, begin * size, data)
            self._advance(end - begin)

    def _advance(self, entries: int) -> None:
        with self._lock:
            self._bar.update(entries)


def _all(pool: ThreadPoolExecutor, work: Callable[[Job], None], jobs: Sequence[Job]) -> None:
    """Do all jobs; after the first failure start no more, and raise it."""
    futures = [pool.submit(work, job) for job in jobs]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def _one_thread_each() -> Iterator[Callable[[], None]]:
    """Give what each worker thread calls to keep torch from starting threads of its own, and undo it."""
    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)
