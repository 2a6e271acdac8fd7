r"""An exponential moving average of the weights, which becomes the model when training ends."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf import engines
from sfa_hf.adapters.kinds import warn_of_factors
from sfa_hf.config.declared import checked
from sfa_hf.config.options import Choice, Fraction
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.hf_trainer.caller import caller
from sfa_hf.hf_trainer.last_in_line import LastInLine
from sfa_hf.hf_trainer.renamed_tensors import resumed_checkpoint
from sfa_hf.hf_trainer.weights_callback import WeightsCallback
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.folder import ShardFolder, save_shard_folder
from sfa_hf.shards.store import open_store

FOLDER = "ema"
"""Folder of the average in each checkpoint."""


AverageDevice = Annotated[str, Choice(("cpu", "device"))]


class EMACallback(WeightsCallback):
    r"""Averages the weights over the training's steps and deploys the average.

        \bar\theta <- d \bar\theta + (1 - d) \theta   after every optimizer step, from \bar\theta = \theta_o

    \theta_o is the weights at the start, so no bias is corrected: after T steps they have the weight d^T.
    Training does not see the average. When its last step ends, \theta <- \bar\theta, and that step's
    evaluation and checkpoint, and the saved model, are the average's. ``ema/distance`` is logged there:
    ||\theta - \bar\theta||_2 just before.

    Each checkpoint carries the average in its folder ``ema``, with which a training resumes to the same bits.

    Args:
        decay: d in [0, 1]; the average looks back on about 1 / (1 - d) steps.
        device: where it is kept, in fp32: "device", beside the weights, or "cpu", for which the weights cross
            the bus in every step.

    Raises:
        ConfigError: an argument that cannot be right; resuming a checkpoint without a whole average.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
    """

    @checked
    def __init__(self, decay: Fraction = 0.99, *, device: AverageDevice = "device") -> None:
        self.decay = decay
        self.device = device
        self.nbytes = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            warn_of_factors(kwargs["model"])
        self._end = LastInLine(self._deploy)
        if not self._begins_again:
            self._average = from_every_process(lambda: self._taken(args, state))
            self.nbytes = self._average.nbytes

    def _taken(self, args: TrainingArguments, state: TrainerState) -> ShardBuffer:
        read: Callable[[engines.Shard], Tensor] = attrgetter("data")
        if state.global_step > 0:
            right = "a checkpoint of this training"
            read = ShardFolder(resumed_checkpoint(args, state) / FOLDER, "resume_from_checkpoint", right).read
        shards = self._engine.shards()
        return ShardBuffer(shards, read, open_store(self.device, shards, torch.float32, Path()))

    @torch.no_grad()
    def on_step_end(self, *_: Any, **__: Any) -> None:
        for block in self._average.edit(self._engine.shards()):
            block.values.lerp_(block.theta.to(block.values), 1 - self.decay)

    def on_save(self, args: TrainingArguments, state: TrainerState, _: TrainerControl, **__: Any) -> None:
        called = caller()
        run_dir = (called and called.run_dir) or Path(str(args.output_dir))
        folder = run_dir / f"checkpoint-{state.global_step}" / FOLDER
        save_shard_folder(folder, self._engine, self._average.save)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end.on_train_end(args, state, control)
        super().on_train_end(args, state, control, **kwargs)
        del self._average

    @torch.no_grad()
    def _deploy(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        squared = torch.zeros(1, dtype=torch.float64)
        for block in self._average.pieces(self._engine.shards()):
            new = block.values.to(block.theta.device)
            squared += (block.theta.double() - new).square().sum().cpu()
            block.theta.copy_(new)
        self._engine.publish()
        distance = self._engine.sum_over_shards(squared).item() ** 0.5
        self._log.write({"ema/decay": self.decay, "ema/distance": distance}, args, state, control)
