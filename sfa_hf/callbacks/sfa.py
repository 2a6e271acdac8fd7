"""Sequential Fine-tuning with Averaging (SFA, arXiv 2501.05559) as a callback of the Hugging Face Trainer."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.anchor.anchored_callback import AnchoredCallback
from sfa_hf.anchor.taker import recorded_attribute
from sfa_hf.averaging.averaging import Averaging
from sfa_hf.hf_trainer.last_in_line import LastInLine
from sfa_hf.moments.weighting import refuse_second_saver


class SFACallback(Averaging, AnchoredCallback):
    r"""Averages the weights in training with an anchor: every pT of the T steps, and at the end.

        \theta <- (1 - \beta) \theta + \beta \theta_o

    \theta_o, the anchor, is the model at the start of the task, which knows the tasks before.

    Example:
        >>> Trainer(model, args, train_dataset=rows, callbacks=[SFACallback(beta=0.5, p=0.25)]).train()

    A merge is done when a step ends, before that step's log, evaluation and checkpoint, which all see the
    merged weights. Where another callback stops the training early, its last step merges too. Each merge is
    logged as ``sfa/merge`` (how many so far), ``sfa/beta``, ``sfa/drift_before`` and ``sfa/drift_after``
    (||\theta - \theta_o||_2 over the merged parameters), ``sfa/seconds`` and ``sfa/bytes`` (of \theta_o
    read).

    The options are documented at the constructor. With ``anchor=None`` and ``save_anchor``, the weights at
    the start are saved where the training saves checkpoints: it can then resume. Every checkpoint carries the
    anchor's fingerprint, and resuming with another anchor is refused.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
        Diverged: at the step after which weights are NaN or infinite; they are not saved.
    """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = super().state()
        kept["attributes"]["moments_record"] = self.moments_record
        return kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check_optimizer(kwargs["optimizer"])
        if self._rule.needs_importances:
            refuse_second_saver(state, allowed=1)
        self._schedule_merges(state.global_step, state.max_steps)
        super().on_train_begin(args, state, control, **kwargs)
        self._end = LastInLine(self._merge_last_step)
        self._begin_weighting(kwargs["optimizer"], str(args.output_dir), args.process_index)
        if state.global_step > 0:
            saved = state.stateful_callbacks.get(type(self).__name__)
            self._check_moments(recorded_attribute(saved, self._patterns(), "moments_record"))
        if state.is_world_process_zero:
            self._warn(kwargs["model"])

    def on_pre_optimizer_step(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any
    ) -> None:
        if self._merges_after(state.global_step + 1):
            self._prefetch()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._merges_after(state.global_step):
            self._merge_and_log(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end.on_train_end(args, state, control)
        self._end_weighting(stepped=state.global_step > 0)
        super().on_train_end(args, state, control, **kwargs)

    def _merge_last_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step != self._last_merge:
            self._merge_and_log(args, state, control)

    def _merge_and_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        self._log.write(self._merge(state.global_step, args.seed), args, state, control)
