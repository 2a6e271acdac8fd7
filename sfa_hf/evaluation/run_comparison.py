"""Two folders of records, task by task: runs, stages of one run, or what ``sfa-hf evaluate`` wrote."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.compare import (
    Difference,
    Record,
    Transitions,
    chance_level,
    paired_difference,
    right_or_wrong,
    transitions,
)
from sfa_hf.evaluation.records import check_record, read_records
from sfa_hf.files.atomic import read_checked

logger = logging.getLogger(__name__)

_STATES = ("state.json", "state.previous.json")


@dataclass(frozen=True)
class TaskComparison:
    """What changed on one task.

    Attributes:
        task: its name.
        before: mean score of the first folder's rows.
        after: of the second's.
        difference: after minus before, paired by row.
        moved: rows lost and gained; None where a row's score is not right or wrong.
        chance: how often a guess is right.
    """

    task: str
    before: float
    after: float
    difference: Difference
    moved: Transitions | None
    chance: float


def compare_folders(before: Path, after: Path, stages: tuple[int | None, int | None]) -> list[TaskComparison]:
    """Compare the tasks that both folders hold records of.

    Args:
        before: a run folder, or a folder of TASK.jsonl files.
        after: likewise.
        stages: after how many tasks, in each of the two; None: the last scored, if it is the same in both.
            Only runs have stages.

    Raises:
        ConfigError: a folder holds no records of that stage, the two have no task in common, their rows
            differ, they were last scored after different numbers of tasks, or a file of records has changed
            since its run wrote it.
    """
    last = [max(scored_stages(folder), default=None) for folder in (before, after)]
    if stages == (None, None) and None not in last and last[0] != last[1]:
        problem = f"is not given; {before} was last scored after {last[0]} tasks, {after} after {last[1]}"
        raise ConfigError("after", problem, f"after=[{last[0]},{last[1]}], or one stage for both")
    first, second = (record_files(*each) for each in zip((before, after), stages, strict=True))
    common = [task for task in first if task in second]
    if not common:
        problem = f"has records of {', '.join(second)}, and {before} of {', '.join(first)}"
        raise ConfigError(str(after), problem, "two folders with a task in common")
    return [_compared(task, first[task], second[task]) for task in common]


def record_files(folder: Path, stage: int | None) -> dict[str, Path]:
    """The files of records in a run folder's stage, or in the folder itself, by task."""
    runs = folder / "records"
    place = folder
    if runs.is_dir():
        chosen = max(scored_stages(folder), default=None) if stage is None else stage
        place = runs / f"after-{chosen}"
    elif stage is not None:
        raise ConfigError("after", f"is {stage}, and {folder} is not a run's folder", "no stage")
    files = {path.stem: path for path in sorted(place.glob("*.jsonl"))}
    if not files:
        raise ConfigError(str(place), "holds no records", "a folder scored with evaluation.records=true")
    if runs.is_dir():
        _check(folder, files)
    return files


def scored_stages(folder: Path) -> list[int]:
    """After how many tasks a run folder has records; nothing for other folders."""
    found = (re.fullmatch(r"after-(\d+)", each.name) for each in (folder / "records").glob("after-*"))
    return [int(each[1]) for each in found if each]


def _check(run: Path, files: Mapping[str, Path]) -> None:
    """Compare files of records with the hashes in the run's state."""
    hashes = _hashes(run)
    if hashes is None:
        logger.warning("%s has no state.json: whether its records have changed is not known", run)
        return
    for file in files.values():
        check_record(run, file, hashes)


def _hashes(run: Path) -> dict[str, str] | None:
    states = [run / name for name in _STATES if (run / name).exists()]
    right = "restore the file, or continue the run, which writes it anew"
    for state in states[:-1]:
        with suppress(ConfigError):  # a damaged one: the state before it
            return read_checked(state, right).get("records", {})
    return read_checked(states[-1], right).get("records", {}) if states else None


def _compared(task: str, before: Path, after: Path) -> TaskComparison:
    first, second = read_records(before), read_records(after)
    try:
        difference = paired_difference(first, second)
    except ValueError as error:
        problem = f"cannot be compared with {before}: {error}"
        raise ConfigError(str(after), problem, "the same task, rows and evaluation.limit") from error
    binary = right_or_wrong(first) and right_or_wrong(second)
    return TaskComparison(
        task=task,
        before=_mean(first),
        after=_mean(second),
        difference=difference,
        moved=transitions(first, second) if binary else None,
        chance=chance_level(first),
    )


def _mean(records: Sequence[Record]) -> float:
    return sum(record["score"] for record in records) / len(records)


def parse_stages(text: object) -> tuple[int | None, int | None]:
    """``after=2``, ``after=[1,2]`` or nothing.

    Raises:
        ConfigError: it is none of these.
    """
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text >= 0):
        return text, text
    if isinstance(text, list) and re.fullmatch(r"\[\d+, \d+\]", str(text)):
        return text[0], text[1]
    raise ConfigError("after", f"is {text!r}", "how many tasks were trained: 2, or for each run, [1,2]")
