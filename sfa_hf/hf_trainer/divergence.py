"""A training whose weights or gradients become NaN or infinite ends before such weights are saved."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf.engines.sharded import is_sharded, own_part
from sfa_hf.errors import Diverged
from sfa_hf.hf_trainer.caller import caller

SKIPPED_IN_A_ROW = {True: 50, False: 3}
"""With a loss scale, and without. A scaler that halves its 2^16 so often is far below fp16's smallest number,
2^-24. Without one it is the weights or the rows, and a few rows may be wrong without harm."""
SKIPPED_AT_THE_END = {True: 3, False: 1}
"""A scaler that has found its scale skips one step when it tries a larger one, DeepSpeed's two."""
_NAMES_SHOWN = 3


class DivergenceWatch(TrainerCallback):
    """Raises :class:`Diverged` on all processes at the same step.

    After each step it looks at one small parameter that every process holds whole, which takes microseconds
    and no communication: a NaN in the loss reaches all parameters in the same step. On a GPU it reads what
    the step before left, and so never waits. All weights are looked at before each evaluation, each
    checkpoint and the end, and where a NaN is logged.

    DeepSpeed skips a step whose gradients are not finite, in bf16 and fp32 too (``check_grad_overflow``), and
    the weights stay. The training goes on, and ends with :data:`SKIPPED_IN_A_ROW` of such steps, with
    :data:`SKIPPED_AT_THE_END` as its last ones, or where all are.
    """

    def on_train_begin(
        self, args: TrainingArguments, _: TrainerState, __: TrainerControl, **kwargs: Any
    ) -> None:
        self._model: nn.Module = kwargs["model"]
        self._has_loss_scale = args.fp16 or any(p.dtype == torch.float16 for p in self._model.parameters())
        self._statistics = _saved_statistics(self._model)
        trained = (p for p in self._model.parameters() if p.requires_grad)
        whole = [p for p in trained if not is_sharded(p) and p.numel()]
        self._sentinel = min(whole, key=torch.numel, default=None)
        on_gpu = self._sentinel is not None and self._sentinel.is_cuda
        self._sum = torch.zeros((), pin_memory=True) if on_gpu else None
        self._skipped = 0

    def on_optimizer_step(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **kwargs: Any
    ) -> None:
        skipped = getattr(kwargs["optimizer"], "step_was_skipped", False)
        self._skipped = self._skipped + 1 if skipped else 0
        if self._skipped >= SKIPPED_IN_A_ROW[self._has_loss_scale]:
            self._refuse_skipped(state.global_step + 1)

    def on_step_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        if not self._looks_finite() or _leaves_weights(control):
            self.check(state)
        self._check_end(state, control)

    def on_epoch_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        if _leaves_weights(control):
            self.check(state)
        self._check_end(state, control)

    def on_log(
        self,
        _: TrainingArguments,
        state: TrainerState,
        __: TrainerControl,
        logs: dict[str, Any] | None = None,
        **___: Any,
    ) -> None:
        logged = [(logs or {}).get(name, 0.0) for name in ("loss", "grad_norm")]
        # DeepSpeed's word for a norm that is not finite is -1.
        if not all(math.isfinite(value) for value in logged) or logged[1] < 0:
            self.check(state)

    @torch.no_grad()
    def check(self, state: TrainerState) -> None:
        """Look at every weight; a collective call.

        Raises:
            Diverged: names the step and some of the weights.
        """
        trained = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        parts = ((name, own_part(values)) for name, values in [*trained, *self._statistics])
        wrong = [name for name, part in parts if not _is_finite(part)][: _NAMES_SHOWN + 1]
        everyones = sorted({name for part in gather_object([wrong]) for name in part})
        if everyones:
            names = ", ".join(everyones[:_NAMES_SHOWN]) + (" ..." if len(everyones) > _NAMES_SHOWN else "")
            raise Diverged(state.global_step, f"weights are NaN or infinite ({names})")

    def _check_end(self, state: TrainerState, control: TrainerControl) -> None:
        """Do not take for trained what its last steps, or all of them, left alone."""
        all_skipped = self._skipped and self._skipped == state.global_step
        if control.should_training_stop and (
            all_skipped or self._skipped >= SKIPPED_AT_THE_END[self._has_loss_scale]
        ):
            self._refuse_skipped(state.global_step)

    def _refuse_skipped(self, step: int) -> NoReturn:
        steps = "this step" if self._skipped == 1 else f"the last {self._skipped} steps"
        raise Diverged(step, f"the gradients of {steps} were NaN or infinite, and no weight was changed")

    def _looks_finite(self) -> bool:
        if self._sentinel is None:
            return True
        total = self._sentinel.detach().sum(dtype=torch.float32)
        if self._sum is not None:
            total = self._sum.copy_(total, non_blocking=True)
        return math.isfinite(total.item())


def watch_divergence() -> None:
    """Have the training that begins watched; called in ``on_train_begin``; once per Trainer is enough."""
    called = caller()
    if called is None or called.trainer is None:
        return
    callbacks = called.handler.callbacks
    if not any(isinstance(each, DivergenceWatch) for each in callbacks):
        callbacks.append(DivergenceWatch())  # the event that is being handled reaches it too


def _leaves_weights(control: TrainerControl) -> bool:
    return control.should_save or control.should_evaluate or control.should_training_stop


def _saved_statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Buffers that training changes and a checkpoint holds, such as BatchNorm's."""
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point()]
    saved = model.state_dict(keep_vars=True) if buffers else {}
    return [(name, buffer) for name, buffer in buffers if name in saved and _is_finite(buffer)]


def _is_finite(values: Tensor) -> bool:
    # the largest magnitude is NaN or infinite where any value is, and takes no memory
    return not values.numel() or math.isfinite(torch.linalg.vector_norm(values, float("inf")).item())
