r"""Adapters in a merge: the factors of each update \Delta W together, so that \Delta W is what is averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Size, Tensor

from sfa_hf.adapters.groups import Group
from sfa_hf.adapters.low_rank import squared_norm, stacked, truncated
from sfa_hf.adapters.magnitudes import DoraLayer
from sfa_hf.anchor.rounding import write
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards.buffer import Block, ShardBuffer

_Parts = dict[str, list[tuple[int, Tensor]]]
_Whole = Mapping[str, Tensor]


@dataclass
class Updates:
    r"""What a merge did to the updates \Delta W of all adapters, over all ranks.

    Attributes:
        squared_before: sum of ||\Delta W - \Delta W_o||_F^2 before. DoRA: of the whole weights. Products that
            are not of two matrices: of the factor that is scaled.
        squared_after: the same, after.
        discarded: sum of the squared norms of what the ranks cannot hold.
        energy: sum of ||(1 - \beta) \Delta W + \beta \Delta W_o||_F^2.
        merged: how many there were.
    """

    squared_before: float = 0.0
    squared_after: float = 0.0
    discarded: float = 0.0
    energy: float = 0.0
    merged: int = 0

    def discarded_share(self) -> float | None:
        """Discarded energy by energy; None where nothing was merged."""
        if not self.merged:
            return None
        return self.discarded / self.energy if self.energy else 0.0


@dataclass
class Factors:
    r"""The groups of a training, and which of their factors are zero at the anchor.

    Where one is, \Delta W_o = 0, and scaling that factor by 1 - \beta scales \Delta W: the others keep their
    values, and Adam's moments of the scaled one their scale, because its gradient does not change. (Scaling
    both by its root would leave both at zero for \beta = 1, where no gradient moves them.) Where none is, the
    sum of both updates, of twice the rank, is cut back to the rank in training.

    Attributes:
        groups: in one order on all ranks.
        shapes: of factors whose anchor has another rank, by name.
    """

    groups: Sequence[Group] = ()
    shapes: Mapping[str, Size] = field(default_factory=dict)
    _zeros: dict[str, str | None] = field(default_factory=dict)
    _collected: _Parts = field(default_factory=dict)

    def places(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards as the anchor has them: in its shapes, split over the ranks alike."""
        return [self._place(shard) for shard in shards]

    def begin(self, engine: Engine, shards: Sequence[Shard], theta_o: ShardBuffer) -> None:
        r"""Find out where \Delta W_o is zero; a collective call.

        Raises:
            ConfigError: it is not, in a layer whose adapter has no average of its own kind then.
        """
        names = [name for group in self.groups for name in group.factors]
        if not names:
            return
        sums = dict.fromkeys(names, 0.0)
        for block in theta_o.pieces(self.places(shards)):
            if block.shard.name in sums:
                sums[block.shard.name] += float(block.values.abs().sum(dtype=torch.float64))
        summed = engine.sum_over_shards(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
        zero = {name for name, total in zip(sums, summed, strict=True) if total == 0}
        for group in self.groups:
            self._zeros[group.factors[0]] = next((name for name in group.factors if name in zero), None)
            if self._zeros[group.factors[0]] is None and group.low_rank is None:
                problem = f"the {group.kind} update of {group.layer} is not zero at the anchor"
                raise ConfigError(
                    "anchor", problem, "the base that the adapter starts from, or lora='factors'"
                )

    def refuse_truncation(self) -> None:
        """Raise ConfigError where updates would be cut back to their rank at every merge."""
        for group in self.groups:
            if self._zeros[group.factors[0]] is None:
                problem = (
                    f"the update of {group.layer} is not zero at the anchor, and would be cut at each step"
                )
                raise ConfigError(
                    "anchor", problem, "the base that the adapter starts from, or lora='factors'"
                )

    def collect(self, blocks: Iterable[Block]) -> Iterator[Block]:
        r"""Keep \theta_o of the factors for :meth:`merge`; give the other blocks on."""
        names = {name for group in self.groups for name in group.names}
        self._collected = {}
        for block in blocks:
            if block.shard.name in names:
                at = block.shard.offset + block.start
                self._collected.setdefault(block.shard.name, []).append((at, block.values.clone()))
            else:
                yield block

    def merge(self, engine: Engine, shards: Sequence[Shard], beta: float, seed: tuple[int, ...]) -> Updates:
        r"""Set each \Delta W to (1 - \beta) \Delta W + \beta \Delta W_o, as its rank allows; a collective call.

        The factors are gathered, computed with in fp64 by the first process, and written by all: a singular
        vector may have either sign on another machine.

        Args:
            engine: where the weights live.
            shards: this rank's part of what is merged.
            beta: \beta.
            seed: of the stochastic rounding of 16-bit weights.
        """
        own, updates = {shard.name: shard for shard in shards}, Updates(merged=len(self.groups))
        for group in self.groups:
            theta = {
                name: _whole(engine, own.get(name), _now(own, name), shape) for name, shape in _shapes(group)
            }
            if group.low_rank is None:
                self._scale(group, theta, beta, updates, own, seed)
                continue
            theta_o = {
                name: _whole(
                    engine, own.get(name), self._collected.get(name, []), self.shapes.get(name, shape)
                )
                for name, shape in _shapes(group)
            }
            merged = self._merged(group, theta, theta_o, beta, updates)
            if beta > 0:
                for name, values in merged.items():
                    _write(own.get(name), values, seed)
        self._collected = {}
        return updates

    def _merged(self, group: Group, theta: _Whole, theta_o: _Whole, beta: float, updates: Updates) -> _Whole:
        """The group's new values, of which some may be left out; adds to the updates."""
        assert group.low_rank is not None
        zero = self._zeros[group.factors[0]]
        if group.low_rank.magnitude is not None:
            layer = DoraLayer(group, theta, theta_o)
            merged = layer.merged(beta, truncate=zero is None)
            before, after, discarded, energy = layer.squares
        elif zero is not None:
            now = group.low_rank.pair(*map(theta.__getitem__, group.factors))
            before = group.low_rank.scaling**2 * squared_norm(now)
            after, discarded, energy = (1 - beta) ** 2 * before, 0.0, (1 - beta) ** 2 * before
            merged = {zero: theta[zero] * (1 - beta)}
        else:
            merged, (before, after, discarded, energy) = from_first_process(
                lambda: _cut_back(group, theta, theta_o, beta)
            )
        updates.squared_before += before
        updates.squared_after += after
        updates.discarded += discarded
        updates.energy += energy
        return merged

    def _scale(
        self,
        group: Group,
        theta: _Whole,
        beta: float,
        updates: Updates,
        own: Mapping[str, Shard],
        seed: tuple[int, ...],
    ) -> None:
        zero = self._zeros[group.factors[0]]
        assert zero is not None
        squared = float(theta[zero].square().sum())
        updates.squared_before += squared
        updates.squared_after += (1 - beta) ** 2 * squared
        updates.energy += (1 - beta) ** 2 * squared
        if beta > 0:
            _write(own.get(zero), theta[zero] * (1 - beta), seed)

    def _place(self, shard: Shard) -> Shard:
        shape = self.shapes.get(shard.name, shard.shape)
        if shape == shard.shape:
            return shard
        first, last = (
            at * shape.numel() // shard.shape.numel()
            for at in (shard.offset, shard.offset + shard.data.numel())
        )
        no_memory = torch.zeros(1, device=shard.data.device).expand(last - first)
        return replace(shard, data=no_memory, offset=first, shape=shape)


def _cut_back(
    group: Group, theta: _Whole, theta_o: _Whole, beta: float
) -> tuple[dict[str, Tensor], tuple[float, float, float, float]]:
    low_rank = group.low_rank
    assert low_rank is not None
    now, then = (low_rank.pair(*(values[name] for name in group.factors)) for values in (theta, theta_o))
    cut = truncated(stacked(now.scaled(1 - beta), then.scaled(beta)), now)
    new, s = cut.pair, low_rank.scaling**2
    merged = {
        name: values.reshape(shape).cpu()
        for name, values, shape in zip(group.factors, low_rank.factors(new), group.shapes, strict=True)
    }
    if beta == 1 and all(theta_o[name].shape == theta[name].shape for name in merged):
        merged = {name: theta_o[name].cpu() for name in merged}
    before, after = (squared_norm(stacked(each, then.scaled(-1.0))) for each in (now, new))
    return merged, (s * before, s * after, s * cut.discarded, s * cut.energy)


def _shapes(group: Group) -> Iterator[tuple[str, Size]]:
    yield from zip(group.factors, group.shapes, strict=True)
    if group.low_rank is not None and group.low_rank.magnitude is not None:
        yield group.low_rank.magnitude, group.low_rank.magnitude_shape


def _now(own: Mapping[str, Shard], name: str) -> list[tuple[int, Tensor]]:
    return [(own[name].offset, own[name].data)] if name in own else []


def _whole(engine: Engine, shard: Shard | None, parts: Iterable[tuple[int, Tensor]], shape: Size) -> Tensor:
    """A parameter in fp64 on every rank, from the parts that each rank has; a collective call."""
    values = torch.zeros(shape.numel(), dtype=torch.float64)
    for at, part in parts:
        values[at : at + part.numel()] = part
    values = engine.sum_over_shards(values).view(shape)
    return values if shard is None else values.to(shard.data.device)


def _write(shard: Shard | None, values: Tensor, seed: tuple[int, ...]) -> None:
    if shard is not None and shard.data.numel():
        flat = values.reshape(-1)[shard.offset : shard.offset + shard.data.numel()]
        write(flat.to(shard.data.device), Block(shard, 0, shard.data, shard.data), seed)
