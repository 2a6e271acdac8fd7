"""What results.json says beyond the run's state: found in the files of the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import chance_level, read_records, right_or_wrong, transitions
from sfa_hf.evaluation.harness import Harness
from sfa_hf.evaluation.records import check_record
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.run_folder import RunFolder, RunState

Records = list[dict[str, Any]]


def harness(folder: RunFolder, config: RunConfig) -> Harness | None:
    """lm-eval's tasks of this run; None where the config names none."""
    if config.evaluation.lm_eval is None:
        return None
    return Harness(
        options=config.evaluation.lm_eval,
        folder=folder.path / "lm_eval",
        data_dir=Path(config.data.dir),
        dtype=config.model.dtype,
        batch_size=config.evaluation.batch_size,
    )


def from_files(folder: RunFolder, config: RunConfig, state: RunState) -> dict[str, Any]:
    """``transitions`` and, where the config names tasks of lm-eval, ``lm_eval``."""
    tasks = [task.name for task in config.tasks]
    lm_eval = harness(folder, config)
    return {
        "transitions": stage_transitions(folder, tasks, state),
        **({} if lm_eval is None else {"lm_eval": lm_eval.found(state.evaluated)}),
    }


def stage_transitions(folder: RunFolder, tasks: Sequence[str], state: RunState) -> list[dict[str, Any]]:
    """Held-out rows answered rightly and wrongly before and after each stage, as in results.json.

    From the records on disk; tasks without them, and tasks whose rows are not right or wrong (perplexity),
    are left out.

    Args:
        folder: the run's folder.
        tasks: their names.
        state: the run's, which tells the rows of the score matrix that are whole, and the records' hashes.

    Raises:
        ConfigError: a file of records is damaged, or not as it was written.
    """
    return [
        found
        for task in tasks
        for before, after in pairwise(range(state.evaluated))
        for found in _between(folder, task, before, after, state.records)
    ]


def _between(
    folder: RunFolder, task: str, before: int, after: int, hashes: Mapping[str, str]
) -> list[dict[str, Any]]:
    paths = [folder.records_folder(row) / f"{task}.jsonl" for row in (before, after)]
    if not all(path.is_file() for path in paths):
        return []
    for path in paths:
        check_record(folder.path, path, hashes)
    try:
        return _moved(task, before, after, *map(read_records, paths))
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{' or '.join(path.parent.name for path in paths)}/{task}.jsonl is damaged: {error}"
        right = "restore it; or delete it, and the task's transitions are left out"
        raise ConfigError(str(paths[0].parent.parent), problem, right) from error


def _moved(task: str, before: int, after: int, first: Records, second: Records) -> list[dict[str, Any]]:
    if not (right_or_wrong(first) and right_or_wrong(second)):
        return []
    moved, chance = transitions(first, second), chance_level(first)
    return [
        {
            "task": task,
            "from": before,
            "to": after,
            **asdict(moved),
            "chance": chance,
            "lost_beyond_chance": moved.lost_beyond_chance(chance),
            "gained_beyond_chance": moved.gained_beyond_chance(chance),
        }
    ]
