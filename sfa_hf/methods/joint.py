"""Joint training: all tasks at once, from the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import Method, Stage
from sfa_hf.tasks import Row

_LENGTHS = {"max_steps", "num_train_epochs"}


class Joint(Method):
    """The reference for keeping: the data of every task, shuffled together, for the steps of all tasks.

    The first stage is this training; the others train nothing, and their scores are the same.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = ("carry", "merge")

    name: Literal["joint"] = "joint"

    def training(self, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        for key in set().union(*tasks) - _LENGTHS:
            _refuse_different(key, tasks)
        steps = [fields.get("max_steps", -1) for fields in tasks]
        if all(each > 0 for each in steps):
            return [{**fields, "max_steps": sum(steps)} for fields in tasks]
        for key in _LENGTHS:
            _refuse_different(key, tasks)
        return [dict(fields) for fields in tasks]

    def trains(self, stage: Stage) -> bool:
        return stage.index == 0

    def rows(self, stage: Stage) -> list[Row]:
        return [row for task in stage.tasks for row in task.train_rows()]


def _refuse_different(key: str, tasks: Sequence[Mapping[str, Any]]) -> None:
    values = [fields.get(key) for fields in tasks]
    if any(value != values[0] for value in values):
        problem = f"joint trains all tasks at once, and training.{key} is {' / '.join(map(str, values))}"
        raise ConfigError("name", problem, f"one training.{key} for all tasks")
