"""Sequential Fine-tuning with Averaging (SFA, arXiv 2501.05559) as a callback of the Hugging Face Trainer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from os import fspath
from typing import Annotated, Any

from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf import engines
from sfa_hf.adapters.kinds import warn_of_factors
from sfa_hf.anchor.anchored_callback import AnchoredCallback
from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.taker import recorded_attribute
from sfa_hf.anchor.weighting import Training, Weighting, Weights
from sfa_hf.callbacks import schedule
from sfa_hf.config.declared import checked
from sfa_hf.config.options import (
    AnchorDevice,
    AnchorDtype,
    Beta,
    Choice,
    Flag,
    Lora,
    MergeEvery,
    P,
    Pattern,
    Power,
    Seed,
    Source,
)
from sfa_hf.engines.optimizers import moment_keys
from sfa_hf.errors import ConfigError, Diverged
from sfa_hf.hf_trainer.last_in_line import LastInLine
from sfa_hf.moments.weighting import ByMoments
from sfa_hf.rules import training_rules

_logger = logging.getLogger(__name__)

DEFAULT_P = 0.25
DEFAULT_POWER = 0.5
ANCHOR_WEIGHT = "sfa/anchor_weight"


Rule = Annotated[str, Choice(training_rules)]
OptimizerState = Annotated[str, Choice(("keep", "reset", "scale"))]


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
        p: p in (0, 1], the fraction of the training between two merges; not beside ``merge_every``.
        merge_every: optimizer steps between two merges, instead of ``p``.
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a local folder or Hub id
            with safetensors.
        anchor_device: where \theta_o is kept: "cpu" (page-locked where there is a GPU), "disk" (a mapped file
            in ``output_dir``), "device", or another store of ``sfa_hf/shards/stores/``.
        anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
        rule: how \theta and \theta_o become one: "average" is the formula above; "fisher" weights each entry,
            \theta <- (w_o \theta_o + w \theta) / (w_o + w), w_o = \beta (\bar F_o + \epsilon)^q,
            w = (1 - \beta) (F + \epsilon)^q, F being Adam's bias-corrected second moment at this step and
            \bar F_o that of the tasks before. It saves \beta \bar F_o + (1 - \beta) F at the end of the
            training, in ``output_dir/_second_moments``. "slerp" turns \theta by the part \beta of its angle
            to \theta_o, tensor by tensor. Other rules of ``sfa_hf/rules/`` work if they define ``towards``.
        optimizer_state: what a merge does to Adam's moments of the merged weights: "keep", "reset" (to zero)
            or "scale" (by 1 - \beta).
        include: regular expression searched in parameter names; others are not merged.
        exclude: regular expression; parameters whose names it is found in are not merged.
        power: q, from 0 (as "average") to 2; for the rule "fisher".
        anchor_moments: for the rule "fisher": folder of \bar F_o; None to look for ``_second_moments`` in and
            beside the anchor's folder; "constant" where there is none: \bar F_o is then the mean of F over
            each parameter.
        shuffle_moments: for the rule "fisher", a control: seed by which \bar F_o is shuffled within each
            parameter.
        lora: how adapters are merged. "exact" averages their updates \Delta W = s B A with those of the
            anchor: where it has none, by scaling B; else in twice the rank, cut back to the rank in training
            by SVD. ``sfa/lora_discarded`` is the share of ||\Delta W||^2 that is lost. Adapters whose updates
            have no such average are refused. "factors" averages all parameters, A and B apart.
        save_anchor: with ``anchor=None``, save the weights at the start in ``output_dir/_sfa_anchor``, once
            and sharded, where the training saves checkpoints: it can then resume. Every checkpoint carries
            the anchor's fingerprint, and resuming with another anchor is refused.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
        Diverged: at the step after which weights are NaN or infinite; they are not saved.
    """

    @checked
    def __init__(
        self,
        beta: Beta = 0.5,
        p: P = DEFAULT_P,
        *,
        merge_every: MergeEvery | None = None,
        anchor: Source | None = None,
        anchor_device: AnchorDevice = "cpu",
        anchor_dtype: AnchorDtype = "float32",
        rule: Rule = "average",
        optimizer_state: OptimizerState = "keep",
        include: Pattern | None = None,
        exclude: Pattern | None = None,
        power: Power = DEFAULT_POWER,
        anchor_moments: Source | None = None,
        shuffle_moments: Seed | None = None,
        lora: Lora = "exact",
        save_anchor: Flag = True,
    ) -> None:
        super().__init__(anchor, anchor_device, anchor_dtype, include, exclude, save_anchor=save_anchor)
        if p != DEFAULT_P and merge_every is not None:
            raise ConfigError("merge_every", f"{merge_every!r} beside p = {p!r}", "one of merge_every and p")
        self.beta = beta
        self.p = p
        self.merge_every = merge_every
        self.rule = rule
        self.optimizer_state = optimizer_state
        self.power = power
        self.anchor_moments = None if anchor_moments is None else fspath(anchor_moments)
        self.shuffle_moments = shuffle_moments
        self.lora = lora
        self.moments_record: dict[str, Any] | None = None
        self._rule = training_rules()[self.rule]()
        self._weighting = self._weighting_of_rule()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = super().state()
        kept["attributes"]["moments_record"] = self.moments_record
        return kept

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        if self._factors.groups and self.rule != "average":
            problem = f"{self.rule!r} beside adapters, whose entries are not those of the weights"
            raise ConfigError("rule", problem, "'average', or lora='factors'")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._moments: tuple[str, ...] = ()
        if self.optimizer_state != "keep":
            try:
                self._moments = moment_keys(kwargs["optimizer"])
            except NotImplementedError as error:
                raise NotImplementedError(f"optimizer_state={self.optimizer_state!r}: {error}") from error
        self._weighting.check(kwargs["optimizer"], state)
        self._every = self.merge_every or schedule.interval(self.p, state.max_steps)
        self._merges = schedule.merges_until(state.global_step, state.max_steps, self._every)
        self._last_merge = 0
        super().on_train_begin(args, state, control, **kwargs)
        self._end = LastInLine(self._merge_last_step)
        self._begin_weighting(args, state, kwargs["optimizer"])
        if state.is_world_process_zero:
            _warn_of_inexact_merges(self._shards())
            if self.lora == "factors":
                warn_of_factors(kwargs["model"])

    def on_pre_optimizer_step(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any
    ) -> None:
        if schedule.is_merge_step(state.global_step + 1, state.max_steps, self._every):
            self._theta_o.prefetch(self._factors.places(self._shards()))
            self._weighting.prefetch(self._shards())

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
        if state.global_step > 0:
            self._weighting.end(self._shards(), self.beta)
        self._weighting.release()
        super().on_train_end(args, state, control, **kwargs)

    def _merge(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        start = time.perf_counter()
        shards = self._shards()
        weights = self._weighting.at_merge(shards, self.beta)
        merged = merge(
            self._engine,
            shards,
            self._theta_o,
            rule=self._rule,
            weights=weights,
            seed=(args.seed, state.global_step),
            names=self._names,
            factors=self._factors,
        )
        if not math.isfinite(merged.drift_before):
            raise Diverged(state.global_step, f"the distance to theta_o is {merged.drift_before}")
        means = weights.means()
        self._treat_moments(shards, weights)
        self._merges += 1
        self._last_merge = state.global_step
        record = {
            "sfa/merge": self._merges,
            "sfa/beta": weights.beta,
            "sfa/drift_before": merged.drift_before,
            "sfa/drift_after": merged.drift_after,
            "sfa/seconds": time.perf_counter() - start,
            "sfa/bytes": merged.nbytes,
        }
        if merged.discarded is not None:
            record["sfa/lora_discarded"] = merged.discarded
        record |= {f"{ANCHOR_WEIGHT}/{kind}": mean for kind, mean in means.items()}
        self._log.write(record, args, state, control)

    def _begin_weighting(self, args: TrainingArguments, state: TrainerState, optimizer: Any) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__)
        training = Training(
            self._engine,
            optimizer,
            self._names,
            self._shards(),
            output_dir=str(args.output_dir),
            rank=args.process_index,
            resumes=state.global_step > 0,
            recorded=recorded_attribute(saved, self._patterns(), "moments_record"),
        )
        try:
            self._weighting.begin(training)
        except BaseException:
            self._weighting.release()
            self._taker.release()
            raise
        self.moments_record = self._weighting.record
        self.nbytes += self._weighting.nbytes

    def _weighting_of_rule(self) -> Weighting:
        if self._rule.needs_importances:
            return ByMoments(
                power=self.power,
                anchor_moments=self.anchor_moments,
                anchor=self.anchor,
                device=self.anchor_device,
                shuffle=self.shuffle_moments,
                optimizer_state=self.optimizer_state,
            )
        for argument, default in (
            ("power", DEFAULT_POWER),
            ("anchor_moments", None),
            ("shuffle_moments", None),
        ):
            if (value := getattr(self, argument)) != default:
                raise ConfigError(argument, f"{value!r} beside rule={self.rule!r}", "rule='fisher'")
        return Weighting()

    def _treat_moments(self, shards: Sequence[engines.Shard], weights: Weights) -> None:
        factor = {"keep": 1.0, "reset": 0.0, "scale": 1 - weights.beta}[self.optimizer_state]
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
