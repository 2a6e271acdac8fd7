r"""Elastic weight consolidation: a penalty weighted by the Fisher information of the tasks before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.anchor.start_weights import FOLDER
from sfa_hf.anchor.taker import anchor_files
from sfa_hf.callbacks.penalty import PenaltyCallback, Piece
from sfa_hf.config.declared import checked
from sfa_hf.config.options import AnchorDevice, Check, Choice, Flag, Fraction, Pattern, Source, Strength
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.fisher.folder import FisherFolder
from sfa_hf.shards.buffer import Block, ShardBuffer
from sfa_hf.shards.store import known_stores, open_store

Mode = Annotated[str, Choice(("online", "separate"))]


class PastTask(NamedTuple):
    r"""What EWC keeps of a task before.

    Attributes:
        fisher: folder of F_j, as :func:`sfa_hf.fisher.estimate.estimate_fisher` saves it.
        model: folder of \theta_j, the model after that task, at which F_j was estimated.
    """

    fisher: str
    model: str


PastTasks = Annotated[
    Sequence[Sequence[str]],
    Check(
        lambda past: isinstance(past, Sequence) and len(past) > 0 and all(len(task) == 2 for task in past),
        "are not the tasks before",
        "the Fisher and the model of one task or more",
    ),
]
Exact = Annotated[str, Choice(("float32",))]


class EWCCallback(PenaltyCallback):
    r"""EWC: trains on L + a quadratic penalty with the Fisher F_j of the tasks j = 1 ... k-1 before.

    "online" (arXiv 1805.06370), around the start of this task:

        (\lambda/2) sum_i A_i (\theta_i - \theta_{o,i})^2,   A = sum_j \gamma^{k-1-j} F_j

    "separate" (arXiv 1612.00796), each task around its own model \theta_j:

        (\lambda/2) sum_j sum_i F_{j,i} (\theta_i - \theta_{j,i})^2

    whose gradient is \lambda (A d + C) with d = \theta - \theta_o, A = sum_j F_j and
    C = sum_j F_j (\theta_o - \theta_j): A and C are summed once, in fp64, and memory does not grow with the
    number of tasks. Either takes fp32 values of this rank's shards for \theta_o and A, "separate" for C too.

    ``ewc/penalty`` and ``ewc/drift`` are logged as for :class:`sfa_hf.callbacks.penalty.PenaltyCallback`.

    Args:
        past: the tasks before, the oldest first.
        lambda_: \lambda, finite and not negative.
        mode: "online" or "separate".
        decay: \gamma in [0, 1], how much of an older task's Fisher is left after another task; "online" only.
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a folder or Hub id.
        anchor_device: where \theta_o, A and C are kept: "cpu", "disk" or "device". They are read in every
            step: "device" is the fastest where there is room.
        anchor_dtype: "float32": a rounded \theta_o would not be the model that F_j belongs to.
        include: regular expression searched in parameter names; others are not penalised.
        exclude: regular expression; parameters whose names it is found in are not penalised.
        save_anchor: as for :class:`sfa_hf.SFACallback`.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, a Fisher that is damaged or
            of another model.
        NotImplementedError: at the start of training, a set-up whose gradients cannot be edited.
    """

    NAME = "ewc"

    @checked
    def __init__(
        self,
        past: PastTasks,
        lambda_: Strength = 100.0,
        *,
        mode: Mode = "online",
        decay: Fraction = 1.0,
        anchor: Source | None = None,
        anchor_device: AnchorDevice = "cpu",
        anchor_dtype: Exact = "float32",
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
        if mode == "separate" and decay != 1:
            raise ConfigError("decay", f"is {decay}, and mode is separate", "mode=online, or leave it out")
        self.past = [PastTask(*map(str, task)) for task in past]
        self.mode = mode
        self.decay = decay
        if not known_stores()[self.anchor_device].exact:
            problem = f"{self.anchor_device!r} rounds theta_o, A and C, which EWC adds up"
            right = ", ".join(name for name, store in known_stores().items() if store.exact)
            raise ConfigError("anchor_device", problem, right)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        fishers = from_every_process(lambda: [FisherFolder(Path(task.fisher)) for task in self.past])
        for fisher in fishers:
            fisher.check(self._engine)

        def filled() -> Tensor:
            self._a = self._zeros("a", args)
            self._c = self._zeros("c", args) if self.mode == "separate" else None
            return self._fill(kwargs["model"], fishers)

        self._at_theta_o = self._engine.sum_over_shards(from_every_process(filled)).item()
        self.nbytes += self._a.nbytes + (self._c.nbytes if self._c else 0)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_end(*args, **kwargs)
        for buffer in filter(None, (self._a, self._c)):
            buffer.release()
        del self._a, self._c

    def _zeros(self, name: str, args: TrainingArguments) -> ShardBuffer:
        shards = self._shards()
        file = Path(str(args.output_dir)) / FOLDER / f"ewc-{name}-{args.process_index:05d}.safetensors"
        store = open_store(self.anchor_device, shards, torch.float32, file)
        return ShardBuffer(shards, lambda _: torch.zeros(()), store)

    def _fill(self, model: nn.Module, fishers: Sequence[FisherFolder]) -> Tensor:
        """Fill A and C, and return this rank's part of the penalty at theta_o."""
        newest = len(self.past) - 1
        constant, zero = torch.zeros(2, 1, dtype=torch.float64)
        models = [anchor_files(task.model, model) for task in self.past] if self._c else []
        for theta_o, a, c in self._places():
            part = theta_o.part
            values = [fisher.read(part).double() for fisher in fishers]
            if c is None:
                a.values.copy_(sum((self.decay ** (newest - j) * f for j, f in enumerate(values)), zero))
                continue
            apart = [theta_o.values.double().cpu() - files.read(part).double() for files in models]
            a.values.copy_(sum(values, zero))
            c.values.copy_(sum((f * e for f, e in zip(values, apart, strict=True)), zero))
            constant += sum((f * e.square()).sum() for f, e in zip(values, apart, strict=True))
        return constant

    def _places(self) -> Iterator[tuple[Block, Block, Block | None]]:
        """Walk over theta_o, A and C, to fill the last two."""
        shards = self._shards()
        # Buffers in stores of one kind, so their pieces are cut alike; strict also walks them to the end.
        filled = [buffer.edit(shards) for buffer in (self._a, self._c) if buffer]
        for theta_o, a, *c in zip(self._theta_o.pieces(shards), *filled, strict=True):
            yield theta_o, a, c[0] if c else None

    def _pieces(self, shards: Sequence[Shard]) -> Iterator[Piece]:
        # Buffers of one dtype and place, so their blocks are cut alike.
        theta_o, a = self._theta_o.blocks(shards), self._a.blocks(shards)
        if self._c is None:
            yield from (Piece(block, of_a.values) for block, of_a in zip(theta_o, a, strict=True))
        else:
            for block, of_a, of_c in zip(theta_o, a, self._c.blocks(shards), strict=True):
                yield Piece(block, of_a.values, of_c.values)

    def _constant(self) -> float:
        return self._at_theta_o
