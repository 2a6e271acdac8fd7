"""What every callback about the weights in training does: refusals in time, whole checkpoints, the engine."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfa_hf import engines
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.hf_trainer import begin
from sfa_hf.hf_trainer.caller import caller
from sfa_hf.hf_trainer.checkpoint_seal import check_resumes, seal_checkpoints
from sfa_hf.hf_trainer.divergence import watch_divergence
from sfa_hf.hf_trainer.log import TrainerLog
from sfa_hf.hf_trainer.renamed_tensors import complete_best, complete_resume


class WeightsCallback(TrainerCallback):
    """Knows where the weights are while a training lasts, and that they can be trained and edited.

    A subclass does its work between ``on_train_begin`` and ``on_train_end``, with ``_engine`` and ``_log``.
    What it keeps from the start of a training it takes only where ``_begins_again`` is False: one call of
    ``train()`` may begin several times, with ``auto_find_batch_size``, and the weights have moved by then.

    Raises:
        ConfigError: at the start of training, weights or arguments that are not finite, or a checkpoint to
            resume from that has changed.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited; at a later
            step, other trainable parameters.
    """

    def on_init_end(self, *_: Any, **__: Any) -> None:
        check_resumes()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del control
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        seal_checkpoints()
        watch_divergence()
        begin.refuse_infinite_arguments(args, optimizer)
        self._engine = from_every_process(lambda: engines.attach(model, optimizer))
        self._log = TrainerLog()
        complete_resume(self._engine, model, args, state)
        begin.refuse_infinite_values(self._engine, ((s, s.data) for s in self._engine.shards()), "model")
        self._trainable = begin.trainable(model)
        if state.is_world_process_zero:
            begin.warn_of_buffers(model)
        call = called.train_call if (called := caller()) else None
        self._begins_again = call is not None and call is getattr(self, "_train_call", None)
        self._train_call = call

    def on_step_begin(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **kwargs: Any
    ) -> None:
        begin.refuse_changes(self._trainable, kwargs["model"], state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del control
        complete_best(self._engine, kwargs["model"], args, state)
        del self._engine, self._log, self._train_call
