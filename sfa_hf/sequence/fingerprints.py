"""The data of a run, by content: every row of every task, as the first launch found it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sfa_hf.errors import ConfigError
from sfa_hf.tasks import Task

Fingerprints = Mapping[str, Mapping[str, str]]
"""SHA-256 of the rendered rows of each source of each task."""


def fingerprints(tasks: Iterable[Task]) -> dict[str, dict[str, str]]:
    """Of training and held-out rows, by task and source."""
    return {task.name: task.fingerprints() for task in tasks}


def changed_source(tasks: Iterable[Task], then: Fingerprints) -> tuple[str, str] | None:
    """The first source whose rows are others than ``then``: "law.train.0", and its path."""
    for task in tasks:
        for name, digest in task.fingerprints().items():
            if then.get(task.name, {}).get(name) != digest:
                return f"{task.name}.{name}", task.source(name)
    return None


def refuse_other_rows(tasks: Iterable[Task], then: Fingerprints) -> None:
    """Raise ConfigError, by task and file, where rows have changed since the first launch."""
    if changed := changed_source(tasks, then):
        name, path = changed
        problem = f"{path} yields other rows than when this run was first launched"
        raise ConfigError(f"sequence.{name}", problem, "the same data, another output_dir, or overwrite=true")
