r"""Adapters in a merge: the factors of each update together, so that \Delta W is what is averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Size, Tensor

from sfa_hf.adapters.groups import Group, Squares
from sfa_hf.adapters.low_rank import average
from sfa_hf.adapters.magnitudes import DoraLayer
from sfa_hf.anchor.rounding import write
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards.buffer import Block, ShardBuffer

_Parts = dict[str, list[tuple[int, Tensor]]]
_Whole = Mapping[str, Tensor]
_NOTHING = Squares(0.0, 0.0, 0.0, 0.0)


@dataclass
class Updates:
    r"""What a merge did to the updates \Delta W of all adapters, over all ranks.

    Attributes:
        squares: their sums.
        merged: how many updates there were.
    """

    squares: Squares = _NOTHING
    merged: int = 0

    def add(self, squares: Squares) -> None:
        """Add those of one update."""
        self.squares = Squares(*map(sum, zip(self.squares, squares, strict=True)))

    def discarded_share(self) -> float | None:
        """Discarded energy by energy; None where nothing was merged."""
        if not self.merged:
            return None
        return self.squares.discarded / self.squares.energy if self.squares.energy else 0.0


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
        r"""Average each \Delta W with \Delta W_o, as its rank allows; a collective call.

        The factors are gathered, computed with in fp64 by the first process, and written by all: a singular
        vector may have either sign on another machine.

        Args:
            engine: where the weights live.
            shards: this rank's part of what is merged.
            beta: \beta.
            seed: of the stochastic rounding of 16-bit weights.
        """
        own, updates = {shard.name: shard for shard in shards}, Updates(merged=len(self.groups))
        now = {name: [(shard.offset, shard.data)] for name, shard in own.items()}
        for group in self.groups:
            theta = _gathered(engine, now, group.full_shapes())
            theta_o: _Whole = {}
            if self._zeros[group.factors[0]] is None or len(group.names) > len(group.factors):
                shapes = [(name, self.shapes.get(name, shape)) for name, shape in group.full_shapes()]
                theta_o = _gathered(engine, self._collected, shapes)
            merged = self._merged(group, theta, theta_o, beta, updates)
            for name, values in merged.items() if beta > 0 else ():
                _write(own.get(name), values, seed)
        self._collected = {}
        return updates

    def _merged(self, group: Group, theta: _Whole, theta_o: _Whole, beta: float, updates: Updates) -> _Whole:
        """The new values of those of the group that change; adds to the updates."""
        zero = self._zeros[group.factors[0]]
        if group.low_rank is not None and group.low_rank.magnitude is not None:
            layer = DoraLayer(group, theta, theta_o)
            merged = layer.merged(beta, truncate=zero is None)
            squares = layer.squares
        elif zero is not None:
            merged = {zero: theta[zero] * (1 - beta)}
            before = group.squared_update(theta, zero)
            squares = Squares(before, (1 - beta) ** 2 * before, 0.0, (1 - beta) ** 2 * before)
        else:
            merged, squares = from_first_process(lambda: _cut_back(group, theta, theta_o, beta))
        updates.add(squares)
        return merged

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


def _cut_back(group: Group, theta: _Whole, theta_o: _Whole, beta: float) -> tuple[dict[str, Tensor], Squares]:
    low_rank = group.low_rank
    assert low_rank is not None
    now, then = (low_rank.pair(*(values[name] for name in group.factors)) for values in (theta, theta_o))
    cut, s = average(now, then, 1 - beta, beta), low_rank.scaling**2
    merged = dict(zip(group.factors, low_rank.factors(cut.pair), strict=True))
    if beta == 1 and all(theta_o[name].shape == theta[name].shape for name in merged):
        merged = {name: theta_o[name] for name in merged}
    return merged, Squares(s * cut.before, s * cut.after, s * cut.discarded, s * cut.energy)


def _gathered(engine: Engine, parts: _Parts, shapes: Iterable[tuple[str, Size]]) -> dict[str, Tensor]:
    """Parameters in fp64 on every rank, from the parts that each rank has; a collective call."""
    whole = {}
    for name, shape in shapes:
        values = torch.zeros(shape.numel(), dtype=torch.float64)
        for at, part in parts.get(name, ()):
            values[at : at + part.numel()] = part
        whole[name] = engine.sum_over_shards(values).view(shape)
    return whole


def _write(shard: Shard | None, values: Tensor, seed: tuple[int, ...]) -> None:
    if shard is not None and shard.data.numel():
        flat = values.reshape(-1)[shard.offset : shard.offset + shard.data.numel()]
        write(flat.to(shard.data.device), Block(shard, 0, shard.data, shard.data), seed)
