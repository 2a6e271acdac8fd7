"""Tasks by the names that a command line gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfa_hf.errors import ConfigError, known_as
from sfa_hf.tasks.task import Task, load_task


def named_tasks(names: str | Sequence[str], data_dir: str) -> list[Task]:
    """Tasks for an option ``task=NAME`` or ``task=[NAME, ...]``; no row is read yet.

    Args:
        names: as :func:`sfa_hf.config.shipped.find_config` finds them.
        data_dir: folder that the tasks' local data files are relative to.

    Raises:
        ConfigError: there is no such task, or two have one name.
    """
    given = [names] if isinstance(names, str) else names
    with known_as({"sequence": "task"}):  # a run's config names its tasks there
        tasks = [load_task(name, data_dir=Path(data_dir)) for name in given]
    if not tasks:
        raise ConfigError("task", "names no task", "task=math or task=[math, law]")
    for position, task in enumerate(tasks):
        if task.name in [other.name for other in tasks[:position]]:
            raise ConfigError("task", f"two tasks are named {task.name!r}", "a name of its own for each task")
    return tasks
