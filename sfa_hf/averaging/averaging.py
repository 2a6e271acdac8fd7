r"""SFA (arXiv 2501.05559): its options, and what it does to the weights of a training of any kind."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from os import fspath
from typing import Annotated, Any

from torch import nn

from sfa_hf import engines
from sfa_hf.adapters.kinds import warn_of_factors
from sfa_hf.anchor.anchored import Anchored
from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.weighting import Training, Weighting, Weights
from sfa_hf.averaging import schedule
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
from sfa_hf.moments.weighting import ByMoments
from sfa_hf.rules import training_rules

_logger = logging.getLogger(__name__)

DEFAULT_P = 0.25
DEFAULT_POWER = 0.5
ANCHOR_WEIGHT = "sfa/anchor_weight"


Rule = Annotated[str, Choice(training_rules)]
OptimizerState = Annotated[str, Choice(("keep", "reset", "scale"))]


class Averaging(Anchored):
    r"""Averages the weights in training with an anchor: every pT of the T steps, and at the end.

    A subclass says when a training begins, steps and ends.
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
        r"""Options of SFA.

        Args:
            beta: \beta in [0, 1], the anchor's weight.
            p: p in (0, 1], the fraction of the training between two merges; not beside ``merge_every``.
            merge_every: optimizer steps between two merges, instead of ``p``.
            anchor: \theta_o: None for the weights at the start of this training, or a local folder or Hub id
                with safetensors.
            anchor_device: where \theta_o is kept: "cpu" (page-locked where there is a GPU), "disk" (a mapped
                file in ``output_dir``), "device", or another store of ``sfa_hf/shards/stores/``.
            anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
            rule: how \theta and \theta_o become one: "average" is the formula above; "fisher" weights each
                entry, \theta <- (w_o \theta_o + w \theta) / (w_o + w), w_o = \beta (\bar F_o + \epsilon)^q, w
                = (1 - \beta) (F + \epsilon)^q, F being Adam's bias-corrected second moment at this step and
                \bar F_o that of the tasks before. It saves \beta \bar F_o + (1 - \beta) F at the end of the
                training, in ``output_dir/_second_moments``. "slerp" turns \theta by the part \beta of its
                angle to \theta_o, tensor by tensor. Other rules of ``sfa_hf/rules/`` work if they define
                ``towards``.
            optimizer_state: what a merge does to Adam's moments of the merged weights: "keep", "reset" (to
                zero) or "scale" (by 1 - \beta).
            include: regular expression searched in parameter names; others are not merged.
            exclude: regular expression; parameters whose names it is found in are not merged.
            power: q, from 0 (as "average") to 2; for the rule "fisher".
            anchor_moments: for the rule "fisher": folder of \bar F_o; None to look for ``_second_moments`` in
                and beside the anchor's folder; "constant" where there is none: \bar F_o is then the mean of F
                over each parameter.
            shuffle_moments: for the rule "fisher", a control: seed by which \bar F_o is shuffled within each
                parameter.
            lora: how adapters are merged. "exact" averages their updates \Delta W = s B A with those of the
                anchor: where it has none, by scaling B; else in twice the rank, cut back to the rank in
                training by SVD. ``sfa/lora_discarded`` is the share of ||\Delta W||^2 that is lost. Adapters
                whose updates have no such average are refused. "factors" averages all parameters, A and B
                apart.
            save_anchor: with ``anchor=None``, save the weights at the start in ``output_dir/_sfa_anchor``,
                once and sharded, where the training saves checkpoints: it can then resume. Every checkpoint
                carries the anchor's fingerprint, and resuming with another anchor is refused.

        Raises:
            ConfigError: an argument that cannot be right.
        """
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

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        if self._factors.groups and self.rule != "average":
            problem = f"{self.rule!r} beside adapters, whose entries are not those of the weights"
            raise ConfigError("rule", problem, "'average', or lora='factors'")

    def _check_optimizer(self, optimizer: Any) -> None:
        """Raise NotImplementedError for an optimizer whose moments the options need and nobody knows."""
        self._moments: tuple[str, ...] = ()
        if self.optimizer_state != "keep":
            try:
                self._moments = moment_keys(optimizer)
            except NotImplementedError as error:
                raise NotImplementedError(f"optimizer_state={self.optimizer_state!r}: {error}") from error
        self._weighting.check(optimizer)

    def _schedule_merges(self, step: int, total: int) -> None:
        """Plan the merges of a training that has ``step`` of ``total`` steps behind it."""
        self._total = total
        self._every = self.merge_every or schedule.interval(self.p, total)
        self._merges = schedule.merges_until(step, total, self._every)
        self._last_merge = 0

    def _merges_after(self, step: int) -> bool:
        return schedule.is_merge_step(step, self._total, self._every)

    def _begin_weighting(self, optimizer: Any, output_dir: str, rank: int) -> None:
        """Take what the merges are weighted by; a collective call, after the anchor was taken."""
        training = Training(
            self._engine, optimizer, self._names, self._shards(), output_dir=output_dir, rank=rank
        )
        try:
            self._weighting.begin(training)
        except BaseException:
            self._let_go()
            raise
        self.moments_record = self._weighting.record
        self.nbytes += self._weighting.nbytes

    def _check_moments(self, recorded: dict[str, Any] | None) -> None:
        """Refuse to resume with other moments than the training began with."""
        try:
            self._weighting.check_record(recorded)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self._weighting.release()
        self._taker.release()

    def _warn(self, model: nn.Module) -> None:
        """Say what makes merges inexact."""
        if low := {str(shard.data.dtype) for shard in self._shards() if shard.data.dtype.itemsize < 4}:
            _logger.warning(
                "the weights in training are %s with no fp32 master: merges are rounded stochastically; "
                "train in fp32 with bf16=True, or under DeepSpeed, for exact ones",
                ", ".join(sorted(low)),
            )
        if self.lora == "factors":
            warn_of_factors(model)

    def _prefetch(self) -> None:
        """Start to bring what the next merge reads to the device."""
        self._theta_o.prefetch(self._factors.places(self._shards()))
        self._weighting.prefetch(self._shards())

    def _merge(self, step: int, seed: int) -> dict[str, float]:
        """Merge after a step, and tell what is logged of it; a collective call.

        Raises:
            Diverged: the weights are not finite.
        """
        start = time.perf_counter()
        shards = self._shards()
        weights = self._weighting.at_merge(shards, self.beta)
        merged = merge(
            self._engine,
            shards,
            self._theta_o,
            rule=self._rule,
            weights=weights,
            seed=(seed, step),
            names=self._names,
            factors=self._factors,
        )
        if not math.isfinite(merged.drift_before):
            raise Diverged(step, f"the distance to theta_o is {merged.drift_before}")
        means = weights.means()
        self._treat_moments(shards, weights)
        self._merges += 1
        self._last_merge = step
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
        return record | {f"{ANCHOR_WEIGHT}/{kind}": mean for kind, mean in means.items()}

    def _end_weighting(self, *, stepped: bool) -> None:
        """Leave what the next training needs, if this one took a step; a collective call."""
        if stepped:
            self._weighting.end(self._shards(), self.beta)
        self._weighting.release()

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
