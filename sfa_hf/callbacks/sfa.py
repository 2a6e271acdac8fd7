"""Sequential Fine-tuning with Averaging (SFA, arXiv 2501.05559) as a callback of the Hugging Face Trainer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf import engines
from sfa_hf.anchor.anchored_callback import AnchoredCallback
from sfa_hf.anchor.merge import Merged, merge
from sfa_hf.anchor.taker import recorded_attribute
from sfa_hf.callbacks import schedule
from sfa_hf.config import checks as options
from sfa_hf.engines.optimizers import moment_keys, second_moment_decay
from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.last_in_line import LastInLine
from sfa_hf.moments.past import CONSTANT
from sfa_hf.moments.weighting import FisherOptions, FisherTraining, refuse_second_saver
from sfa_hf.rules import TRAINING_RULES

_logger = logging.getLogger(__name__)

DEFAULT_P = 0.25
DEFAULT_POWER = 0.5
ANCHOR_WEIGHT = "sfa/anchor_weight"


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
        rule: how \theta and \theta_o become one: "average" is the formula above; "fisher" weighs each entry,
            \theta <- (w_o \theta_o + w \theta) / (w_o + w), w_o = \beta (\bar F_o + \epsilon)^q,
            w = (1 - \beta) (F + \epsilon)^q, F being Adam's bias-corrected second moment at this step and
            \bar F_o that of the tasks before. It saves \beta \bar F_o + (1 - \beta) F at the end of the
            training, in ``output_dir/second_moments``.
        optimizer_state: what a merge does to Adam's moments of the merged weights: "keep", "reset" (to zero)
            or "scale" (by 1 - \beta).
        include: regular expression searched in parameter names; others are not merged.
        exclude: regular expression; parameters whose names it is found in are not merged.
        power: for the rule "fisher": q, from 0 (as "average") to 2.
        anchor_moments: for the rule "fisher": folder of \bar F_o; None to look for ``second_moments`` in and
            beside the anchor's folder; "constant" where there is none: \bar F_o is then the mean of F over
            each parameter.
        shuffle_moments: for the rule "fisher", a control: seed by which \bar F_o is shuffled within each
            parameter.
        save_anchor: with ``anchor=None``, save the weights at the start in ``output_dir/sfa_anchor``, once
            and sharded, where the training saves checkpoints: it can then resume. Every checkpoint carries
            the anchor's fingerprint, and resuming with another anchor is refused.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
    """

    OPTIONS = (
        "beta", "p", "merge_every", "rule", "optimizer_state", "power", "anchor_moments", "shuffle_moments",
    )  # fmt: skip

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
        power: float = DEFAULT_POWER,
        anchor_moments: str | PathLike[str] | None = None,
        shuffle_moments: int | None = None,
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
        self.power = options.check_power(power)
        self.anchor_moments = None if anchor_moments is None else fspath(anchor_moments)
        self.shuffle_moments = options.check_seed("shuffle_moments", shuffle_moments)
        self.moments_record: dict[str, Any] | None = None
        self._check_fisher_options()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = super().state()
        kept["attributes"]["moments_record"] = self.moments_record
        return kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._moments: tuple[str, ...] = ()
        if self.optimizer_state != "keep":
            try:
                self._moments = moment_keys(kwargs["optimizer"])
            except NotImplementedError as error:
                raise NotImplementedError(f"optimizer_state={self.optimizer_state!r}: {error}") from error
        if self.rule == "fisher":
            second_moment_decay(kwargs["optimizer"])  # refuses before anything is read
            refuse_second_saver(state, allowed=1)
        self._every = self.merge_every or schedule.interval(self.p, state.max_steps)
        self._merges = schedule.merges_until(state.global_step, state.max_steps, self._every)
        self._last_merge = 0
        super().on_train_begin(args, state, control, **kwargs)
        self._end = LastInLine(self._merge_last_step)
        self._fisher = self._begin_fisher(args, state, **kwargs) if self.rule == "fisher" else None
        if state.is_world_process_zero:
            _warn_of_inexact_merges(self._shards())

    def on_pre_optimizer_step(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any
    ) -> None:
        if schedule.is_merge_step(state.global_step + 1, state.max_steps, self._every):
            self._theta_o.prefetch(self._shards())
            if self._fisher is not None:
                self._fisher.prefetch(self._shards())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if schedule.is_merge_step(state.global_step, state.max_steps, self._every):
            self._merge(args, state, control)

    def _merge_last_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step != self._last_merge:
            self._merge(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end.on_train_end(args, state, control)
        if self._fisher is not None:
            if state.global_step > 0:
                self._fisher.end(self._shards())
            self._fisher.release()
        del self._fisher
        super().on_train_end(args, state, control, **kwargs)

    def _merge(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        start = time.perf_counter()
        shards, rule = self._shards(), TRAINING_RULES[self.rule]
        seed = (args.seed, state.global_step)
        weights = None if self._fisher is None else self._fisher.at_merge(shards)
        merged = merge(self._engine, shards, self._theta_o, rule=rule, beta=weights or self.beta, seed=seed)
        means = {} if weights is None else weights.means()
        self._treat_moments(shards)
        self._merges += 1
        self._last_merge = state.global_step
        record = self._record(merged, time.perf_counter() - start)
        record |= {f"{ANCHOR_WEIGHT}/{kind}": mean for kind, mean in means.items()}
        self._log.write(record, args, state, control)

    def _begin_fisher(
        self, args: TrainingArguments, state: TrainerState, *, model: nn.Module, optimizer: Any, **_: Any
    ) -> FisherTraining:
        given = FisherOptions(
            self.beta, self.power, self.anchor_moments, self.anchor, self.anchor_device, self.shuffle_moments
        )
        names = [name for name, p in model.named_parameters() if p.requires_grad and self._concerns(name)]
        try:
            fisher = FisherTraining(given, self._engine, optimizer, args)
            if state.global_step > 0:
                saved = state.stateful_callbacks.get(type(self).__name__)
                recorded = recorded_attribute(saved, self._patterns(), "moments_record")
                self.moments_record = fisher.begin_again(names, self._shards(), recorded)
            else:
                self.moments_record = fisher.begin(names, self._shards())
        except BaseException:
            self._taker.release()
            raise
        self.nbytes += fisher.nbytes
        return fisher

    def _check_fisher_options(self) -> None:
        if self.rule == "fisher":
            if self.optimizer_state != "keep":
                problem = (
                    f"{self.optimizer_state!r} beside rule='fisher', whose F is the optimizer's second moment"
                )
                raise ConfigError("optimizer_state", problem, "'keep'")
            if self.shuffle_moments is not None and self.anchor_moments == CONSTANT:
                raise ConfigError("shuffle_moments", "nothing to shuffle in 'constant' moments", "None")
            return
        for argument, default in (
            ("power", DEFAULT_POWER),
            ("anchor_moments", None),
            ("shuffle_moments", None),
        ):
            if (value := getattr(self, argument)) != default:
                raise ConfigError(argument, f"{value!r} beside rule={self.rule!r}", "rule='fisher'")

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
        for shard in shards:
            for key in self._moments:
                if (moment := self._engine.optimizer_state(key, shard)) is not None:
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
