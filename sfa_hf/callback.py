"""Sequential Fine-tuning with Averaging (SFA, arXiv 2501.05559) as a callback of the Hugging Face Trainer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from os import PathLike
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf import engines, options, schedule
from sfa_hf.anchored import AnchoredCallback
from sfa_hf.engines.optimizers import keeps_moments
from sfa_hf.errors import ConfigError
from sfa_hf.merge import Merged, merge
from sfa_hf.rules import TRAINING_RULES

_logger = logging.getLogger(__name__)

_MOMENTS = ("exp_avg", "exp_avg_sq")
DEFAULT_P = 0.25
_NO_MOMENTS = "this optimizer does not keep Adam's moments (exp_avg, exp_avg_sq); supported: 'keep', or AdamW"


class SFACallback(AnchoredCallback):
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

    Args:
        beta: \beta in [0, 1], the anchor's weight.
        p: fraction of the training between two merges, in (0, 1]; 0.25 if neither it nor ``merge_every`` is
            given.
        merge_every: optimizer steps between two merges, instead of ``p``.
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a local folder or Hub id
            with safetensors.
        anchor_device: where \theta_o is kept: "cpu" (page-locked where there is a GPU), "disk" (a mapped file
            in ``output_dir``) or "device".
        anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
        rule: how \theta and \theta_o become one; "average" is the formula above.
        optimizer_state: what a merge does to Adam's moments of the merged weights: "keep", "reset" (to zero)
            or "scale" (by 1 - \beta).
        include: regular expression searched in parameter names; others are not merged.
        exclude: regular expression; parameters whose names it is found in are not merged.
        save_anchor: with ``anchor=None``, save the weights at the start in ``output_dir/sfa_anchor``, once
            and sharded, where the training saves checkpoints: it can then resume. Every checkpoint carries
            the anchor's fingerprint, and resuming with another anchor is refused.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
    """

    OPTIONS = ("beta", "p", "merge_every", "rule", "optimizer_state")

    def __init__(
        self,
        beta: float = 0.5,
        p: float = DEFAULT_P,
        *,
        merge_every: int | None = None,
        anchor: str | PathLike[str] | None = None,
        anchor_device: str = "cpu",
        anchor_dtype: str = "float32",
        rule: str = "average",
        optimizer_state: str = "keep",
        include: str | None = None,
        exclude: str | None = None,
        save_anchor: bool = True,
    ) -> None:
        super().__init__(anchor, anchor_device, anchor_dtype, include, exclude, save_anchor=save_anchor)
        if p != DEFAULT_P and merge_every is not None:
            raise ConfigError("merge_every", f"{merge_every!r} beside p = {p!r}", "one of merge_every and p")
        self.beta = options.check_beta(beta)
        self.p = options.check_p(p)
        self.merge_every = None if merge_every is None else options.check_merge_every(merge_every)
        self.rule = options.check_choice("rule", rule, TRAINING_RULES)
        self.optimizer_state = options.check_choice(
            "optimizer_state", optimizer_state, ("keep", "reset", "scale")
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.optimizer_state != "keep" and not keeps_moments(kwargs["optimizer"]):
            raise NotImplementedError(f"optimizer_state={self.optimizer_state!r}: {_NO_MOMENTS}")
        self._every = self.merge_every or schedule.interval(self.p, state.max_steps)
        self._merges = schedule.merges_until(state.global_step, state.max_steps, self._every)
        self._last_merge = 0
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            _warn_of_inexact_merges(self._shards())

    def on_pre_optimizer_step(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any
    ) -> None:
        if schedule.is_merge_step(state.global_step + 1, state.max_steps, self._every):
            self._theta_o.prefetch(self._shards())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if schedule.is_merge_step(state.global_step, state.max_steps, self._every):
            self._merge(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        stopped_early = control.should_training_stop and 0 < state.global_step < state.max_steps
        if stopped_early and state.global_step != self._last_merge:
            self._merge(args, state, control)

    def _merge(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        start = time.perf_counter()
        shards, rule = self._shards(), TRAINING_RULES[self.rule]
        seed = (args.seed, state.global_step)
        merged = merge(self._engine, shards, self._theta_o, rule=rule, beta=self.beta, seed=seed)
        self._treat_moments(shards)
        self._merges += 1
        self._last_merge = state.global_step
        self._log.write(self._record(merged, time.perf_counter() - start), args, state, control)

    def _record(self, merged: Merged, seconds: float) -> dict[str, float]:
        return {
            "sfa/merge": self._merges,
            "sfa/beta": self.beta,
            "sfa/drift_before": merged.drift_before,
            "sfa/drift_after": merged.drift_after,
            "sfa/seconds": seconds,
            "sfa/bytes": merged.nbytes,
        }

    def _treat_moments(self, shards: Sequence[engines.Shard]) -> None:
        factor = {"keep": 1.0, "reset": 0.0, "scale": 1 - self.beta}[self.optimizer_state]
        if factor == 1 or not shards:
            return
        kept = [self._engine.optimizer_state(key, shard) for shard in shards for key in _MOMENTS]
        moments = [moment for moment in kept if moment is not None]
        if not moments:
            raise NotImplementedError(f"optimizer_state={self.optimizer_state!r}: {_NO_MOMENTS}")
        for moment in moments:
            moment.mul_(factor)


def _warn_of_inexact_merges(shards: Sequence[engines.Shard]) -> None:
    if low := {str(shard.data.dtype) for shard in shards if shard.data.dtype.itemsize < 4}:
        _logger.warning(
            "the weights in training are %s with no fp32 master: merges are rounded stochastically; "
            "train in fp32 with bf16=True, or under DeepSpeed, for exact ones",
            ", ".join(sorted(low)),
        )
    if any("lora_A" in shard.name for shard in shards):
        _logger.warning(
            "merging LoRA factors: the average of A and of B is not the average of the update B A "
            "(both halved make it a quarter)"
        )
