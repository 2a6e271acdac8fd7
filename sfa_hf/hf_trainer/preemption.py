"""SIGTERM, which a scheduler sends before it takes a machine away: finish the step, checkpoint, end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.distributed import peers
from sfa_hf.errors import Preempted


class Preemption:
    """Hears SIGTERM. At once where nothing would be lost, at the end of a step while a task trains."""

    def __init__(self) -> None:
        self.asked = False
        self._deferred = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Answer SIGTERM in the block.

        Raises:
            Preempted: it was heard; at the block's end at the latest, where Python was at work that lets no
                exception out (a weak reference's callback) when the signal came.
        """
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self.asked:
            raise Preempted("stopped by SIGTERM")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Do not break into the block, which trains a task and keeps its model; a collective call.

        Raises:
            Preempted: the block is done, and some process was told to end.
        """
        self._deferred = True
        yield
        self._deferred = False
        if _anyone(self.asked):
            raise Preempted("stopped by SIGTERM between two tasks")

    def _hear(self, *_: Any) -> None:
        self.asked = True
        if not self._deferred:
            raise Preempted("stopped by SIGTERM")


class StopAtStep(TrainerCallback):
    """Checkpoints and ends the training at a step's end, on all processes at the same one.

    Whether any process was told to end is summed over all of them while the next step computes, so that the
    question costs no waiting. Put it behind the callback that seals checkpoints.

    Args:
        preemption: who heard the signal.
        task: the task's name, for the message.
    """

    def __init__(self, preemption: Preemption, task: str) -> None:
        self._preemption = preemption
        self._task = task
        self._stopping = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._agreement = _Agreement()

    def on_step_begin(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any
    ) -> None:
        peers.at(f"step {state.global_step + 1} of task {self._task}")

    def on_step_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        if self._agreement.reached(self._preemption.asked) and state.global_step < state.max_steps:
            self._stopping = control.should_save = True

    def on_save(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        if self._stopping:
            step = f"step {state.global_step} of {state.max_steps} of task {self._task}"
            raise Preempted(f"stopped by SIGTERM after {step}; its checkpoint is whole")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._agreement.close()


class _Agreement:
    """Tells all processes at the same step that one of them asks to stop: one step after it asked."""

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo") if _several() else None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def reached(self, asked: bool) -> bool:
        if self._group is None:
            return asked
        answer = self._answer()
        votes = torch.tensor([float(asked)])
        self._pending = (dist.all_reduce(votes, group=self._group, async_op=True), votes)
        return answer

    def close(self) -> None:
        self._answer()

    def _answer(self) -> bool:
        if self._pending is None:
            return False
        work, votes = self._pending
        work.wait()
        return votes.item() > 0


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _anyone(asked: bool) -> bool:
    if not _several():
        return asked
    answers: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(answers, asked)
    return any(answers)
