r"""The weighting by moments: \bar F_o at the start, weights at the merges, \bar F at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch
from transformers import TrainerState

from sfa_hf.anchor.weighting import Training, Weighting
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines.base import Shard
from sfa_hf.engines.optimizers import second_moment_decay
from sfa_hf.errors import ConfigError
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.entry_weights import EntryWeights
from sfa_hf.moments.past import CONSTANT, AnchorMoments, refuse_other_moments
from sfa_hf.shards.buffer import ShardBuffer


class ByMoments(Weighting):
    r"""The anchor's weight of each entry: w_o / (w_o + w) of :func:`sfa_hf.rules.anchor_weight`.

    \epsilon is relative to the mean of F and \bar F_o over a whole parameter, over all ranks: every engine
    and number of processes has the same.

    Args:
        power: q.
        anchor_moments: folder of \bar F_o; "constant" for the mean of F over each parameter, the same for all
            its entries; None to look in and beside the anchor.
        anchor: the anchor's folder, or None.
        device: name of the store that keeps \bar F_o.
        shuffle: seed of the shuffled control; None for none.
        optimizer_state: what merges do to Adam's moments.

    Raises:
        ConfigError: arguments that do not go together.
    """

    def __init__(
        self,
        *,
        power: float,
        anchor_moments: str | None,
        anchor: str | None,
        device: str,
        shuffle: int | None,
        optimizer_state: str,
    ) -> None:
        if optimizer_state != "keep":
            problem = f"{optimizer_state!r} beside rule='fisher', whose F is the optimizer's second moment"
            raise ConfigError("optimizer_state", problem, "'keep'")
        if shuffle is not None and anchor_moments == CONSTANT:
            raise ConfigError("shuffle_moments", "nothing to shuffle in 'constant' moments", "None")
        self._power, self._device, self._shuffle = power, device, shuffle
        self._given, self._anchor = anchor_moments, anchor
        self._past: AnchorMoments | None = None

    def check(self, optimizer: Any) -> None:
        second_moment_decay(optimizer)

    def begin(self, training: Training) -> None:
        engine = self._engine = training.engine
        self._names = training.names
        self._moments = SecondMoments(engine, training.optimizer)
        self._past = from_every_process(
            lambda: AnchorMoments(self._given, self._anchor, self._shuffle, training.output_dir)
        )
        self._before, record = self._past.take(engine, training.shards, self._device, training.rank)
        self._sums_before: Mapping[str, float] | None = None
        self.nbytes = 0 if self._before is None else self._before.nbytes
        self.record = asdict(record)

    def check_record(self, recorded: dict[str, Any] | None) -> None:
        assert self.record is not None
        refuse_other_moments(self.record, recorded)

    def prefetch(self, shards: Sequence[Shard]) -> None:
        if self._before is not None:
            self._before.prefetch(shards)

    def at_merge(self, shards: Sequence[Shard], beta: float) -> EntryWeights:
        r"""The weights of a merge that begins; a collective call.

        Args:
            shards: of this rank.
            beta: \beta, the weight where F says nothing.

        Raises:
            FloatingPointError: a second moment is infinite or NaN.
        """
        sums = self._summed(self._moments.sums(shards))
        if self._before is None:
            sums_before: Mapping[str, float] = sums
        else:
            self._sums_before = self._sums_before or self._summed(_sums(self._before, shards))
            sums_before = self._sums_before
        means = {
            shard.name: (sums[shard.name] + sums_before[shard.name]) / (2 * max(shard.shape.numel(), 1))
            for shard in shards
        }
        before = None if self._before is None else self._before.blocks(shards)
        return EntryWeights(self._engine, self._moments, before, means, beta=beta, power=self._power)

    def end(self, shards: Sequence[Shard], beta: float) -> None:
        r"""Save \beta \bar F_o + (1 - \beta) F for the next training; a collective call.

        Raises:
            ConfigError: there is no room.
        """
        assert self._past is not None
        self._past.save(self._engine, shards, self._moments, beta)

    def release(self) -> None:
        if self._past is not None:
            self._past.release()

    def _summed(self, sums: Mapping[str, float]) -> dict[str, float]:
        local = torch.tensor([sums.get(name, 0.0) for name in self._names], dtype=torch.float64)
        total = dict(zip(self._names, self._engine.sum_over_shards(local).tolist(), strict=True))
        for name, value in total.items():
            if not isfinite(value):
                raise FloatingPointError(f"the second moment of {name} is not finite: training has diverged")
        return total


def refuse_second_saver(state: TrainerState, *, allowed: int) -> None:
    r"""Refuse a training in which \bar F of one callback would replace another's in ``second_moments``.

    Args:
        state: of a training that begins. At a resume nothing is refused: the Trainer's record of callbacks
            grows with each save there.
        allowed: how many ``SFACallback(rule="fisher")`` there may be.

    Raises:
        ConfigError: there are more.
    """
    if state.global_step > 0:
        return
    kept = (state.stateful_callbacks or {}).values()
    states = [each for entry in kept for each in (entry if isinstance(entry, list) else [entry])]
    savers = [each for each in states if each.get("args", {}).get("rule") == "fisher"]
    if len(savers) > allowed:
        problem = "of this training would be saved twice in output_dir, the second over the first"
        right = "one SFACallback(rule='fisher'), or one SecondMomentsCallback, but not both"
        raise ConfigError("second_moments", problem, right)


def _sums(before: ShardBuffer, shards: Sequence[Shard]) -> dict[str, float]:
    sums = {shard.name: 0.0 for shard in shards}
    for shard, _, __, values in before.pieces(shards):
        sums[shard.name] += values.sum(dtype=torch.float64).item()
    return sums
