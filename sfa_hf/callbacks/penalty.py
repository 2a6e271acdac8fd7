r"""Penalties on the distance to \theta_o, added to the reduced gradient: no graph, no gathered weight."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.adapters.kinds import warn_of_factors
from sfa_hf.anchor.anchored_callback import AnchoredCallback
from sfa_hf.config.declared import checked
from sfa_hf.config.options import AnchorDevice, AnchorDtype, Flag, Pattern, Source, Strength
from sfa_hf.engines import Engine, Shard
from sfa_hf.hf_trainer.gradient_edit import GradientEdit
from sfa_hf.shards.buffer import Block


class Piece(NamedTuple):
    r"""A piece of a shard with what the penalty is made of there; d = \theta - \theta_o.

    Attributes:
        block: \theta beside \theta_o.
        curvature: A of the same elements; None for 1.
        pull: C of the same elements; None for 0.
    """

    block: Block
    curvature: Tensor | None = None
    pull: Tensor | None = None

    def slope(self) -> Tensor:
        """A d + C, in fp32 at least."""
        slope = self._difference(torch.float32)
        if self.curvature is not None:
            slope.mul_(self.curvature)
        return slope if self.pull is None else slope.add_(self.pull)

    def sums(self) -> Tensor:
        """Sum of A d^2 + 2 C d, and of d^2, in fp64."""
        difference = self._difference(torch.float64)
        squares = difference.square()
        energy = squares if self.curvature is None else squares * self.curvature
        total = energy.sum() if self.pull is None else energy.sum() + 2 * difference.dot(self.pull.double())
        return torch.stack([total, squares.sum()])

    def _difference(self, dtype: torch.dtype) -> Tensor:
        theta = self.block.theta
        return theta.to(torch.promote_types(theta.dtype, dtype)) - self.block.values


class PenaltyCallback(AnchoredCallback, ABC):
    r"""Trains on L + (\lambda/2) sum_i [A_i d_i^2 + 2 C_i d_i] + constant, d = \theta - \theta_o.

    Its gradient \lambda (A d + C) is added to the reduced gradient of each step, shard by shard and before
    clipping, which so sees the sum. A parameter without a gradient in a step is not stepped, and not pulled.

    ``NAME/penalty`` (the term added to L) and ``NAME/drift`` (||d||_2) are logged when the Trainer logs and
    at the last step, both of the weights after that step.
    """

    NAME: ClassVar[str]

    def __init__(self, lambda_: float, **anchored: Any) -> None:
        super().__init__(**anchored)
        self.lambda_ = lambda_
        self._edit = GradientEdit()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._edit.end()  # of a training that an exception ended
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            warn_of_factors(kwargs["model"])
        self._edit.begin(self._engine, self._add_gradient, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_log or state.global_step >= state.max_steps:
            self._log.write(self._record(), args, state, control)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._edit.end()
        super().on_train_end(*args, **kwargs)

    def _pieces(self, shards: Sequence[Shard]) -> Iterator[Piece]:
        """Walk over the shards; A = 1 and C = 0 unless a subclass says otherwise."""
        return map(Piece, self._theta_o.blocks(shards))

    def _constant(self) -> float:
        """What the penalty is at d = 0, over all ranks and without lambda / 2."""
        return 0.0

    def _add_gradient(self, engine: Engine) -> None:
        shards = self._shards()
        gradients = {shard.name: engine.gradient(shard) for shard in shards}
        for piece in self._pieces(shards):
            gradient, start = gradients[piece.block.shard.name], piece.block.start
            if gradient is not None:
                part = gradient[start : start + piece.block.theta.numel()]
                part.add_(piece.slope(), alpha=self.lambda_)

    @torch.no_grad()
    def _record(self) -> dict[str, float]:
        sums = torch.zeros(2, dtype=torch.float64)
        for piece in self._pieces(self._shards()):
            sums += piece.sums().cpu()
        energy, squared = self._engine.sum_over_shards(sums).tolist()
        penalty = self.lambda_ / 2 * (energy + self._constant())
        return {f"{self.NAME}/penalty": penalty, f"{self.NAME}/drift": squared**0.5}


class L2Callback(PenaltyCallback):
    r"""L2 towards the start: trains on L + (\lambda/2) ||\theta - \theta_o||_2^2.

    The penalty is part of the gradient: clipping and Adam's preconditioner act on it. For a pull that they
    do not touch, of the strength of SFA's, see :class:`sfa_hf.PullCallback`.

    Example:
        >>> Trainer(model, args, train_dataset=rows, callbacks=[L2Callback(0.1)]).train()

    Args:
        lambda_: \lambda, finite and not negative; 0 is plain training.
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a local folder or Hub id
            with safetensors.
        anchor_device: where \theta_o is kept: "cpu", "disk" or "device". It is read in every step: "device"
            is the fastest where there is room.
        anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
        include: regular expression searched in parameter names; others are not penalised.
        exclude: regular expression; parameters whose names it is found in are not penalised.
        save_anchor: as for :class:`sfa_hf.SFACallback`.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose gradients cannot be edited.
    """

    NAME = "l2"

    @checked
    def __init__(
        self,
        lambda_: Strength = 0.1,
        *,
        anchor: Source | None = None,
        anchor_device: AnchorDevice = "cpu",
        anchor_dtype: AnchorDtype = "float32",
        include: Pattern | None = None,
        exclude: Pattern | None = None,
        save_anchor: Flag = True,
    ) -> None:
        super().__init__(
            lambda_,
            anchor=anchor,
            anchor_device=anchor_device,
            anchor_dtype=anchor_dtype,
            include=include,
            exclude=exclude,
            save_anchor=save_anchor,
        )
