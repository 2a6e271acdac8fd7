r"""The diagonal empirical Fisher of a trained model, computed row by row on the training engine.

    F_i = 1/n sum over n rows of (d log p(y | x; \theta) / d \theta_i)^2

with the targets y of the rows themselves (the "empirical" Fisher; no labels are sampled). The log-likelihood
of a row is summed, not averaged, over the tokens of its target.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sfa_hf import engines
from sfa_hf.errors import ConfigError
from sfa_hf.fisher.folder import save_fisher
from sfa_hf.hf_trainer.gradient_pass import gradient_pass, without_updates
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

_logger = logging.getLogger(__name__)

ESTIMATOR = "diagonal empirical Fisher: mean over rows of the squared gradient of a row's log-likelihood"
_IGNORED = -100
_REPORTS = 10
"""Number of progress lines in the log."""


class FisherCallback(TrainerCallback):
    """Adds the squared reduced gradient of each step to an fp32 buffer of this rank's shards.

    Each step must be one row, the same on every process, and must not change the weights. The gradient is
    taken in the precision of the training, before clipping.

    Args:
        rows: number of rows, which is the number of steps.
        name: name of the rows in the log.
    """

    def __init__(self, rows: int, name: str) -> None:
        self._rows, self._name = rows, name
        self._seen = 0

    def on_train_begin(self, _: Any, __: Any, ___: Any, **kwargs: Any) -> None:
        self._engine = engines.attach(kwargs["model"], kwargs["optimizer"])
        # the same on every process: ZeRO-3 keeps the size of what it has released
        trained = [(name, p) for name, p in kwargs["model"].named_parameters() if p.requires_grad]
        self._names = [name for name, p in trained if int(getattr(p, "ds_numel", p.numel())) > 0]
        shards = self._engine.shards()
        one_device = len({shard.data.device for shard in shards}) <= 1
        store = open_store("device" if one_device else "cpu", shards, torch.float32, Path())
        self._squares = ShardBuffer(shards, lambda _: torch.zeros(()), store)
        self._handle = self._engine.before_step(self._add)

    def on_step_end(self, _: Any, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        every = max(1, self._rows // _REPORTS)
        if state.is_world_process_zero and state.global_step % every == 0:
            _logger.info("Fisher of %s: %d of %d rows", self._name, state.global_step, self._rows)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._handle.remove()

    @torch.no_grad()
    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Save the mean over the rows. Call it on every process, after training.

        Raises:
            RuntimeError: a row gave no gradient, or the Fisher is zero or not finite.
        """
        if self._seen != self._rows:
            raise RuntimeError(f"Fisher of {self._name}: {self._seen} gradients of {self._rows} rows")
        for block in self._squares.edit(self._engine.shards()):
            block.values.div_(self._rows)
        self._check()
        save_fisher(folder, self._engine, self._engine.shards(), self._squares, facts)

    def _add(self, engine: engines.Engine) -> None:
        self._seen += 1
        for shard, start, _, squares in self._squares.edit(engine.shards()):
            gradient = engine.gradient(shard)
            if gradient is not None:
                exact = gradient[start : start + squares.numel()].to(squares)
                squares.addcmul_(exact, exact)

    def _check(self) -> None:
        place = {name: index for index, name in enumerate(self._names)}
        totals = torch.zeros(len(place), dtype=torch.float64)
        for shard, _, __, squares in self._squares.pieces(self._engine.shards()):
            totals[place[shard.name]] += squares.sum(dtype=torch.float64).item()
        totals = self._engine.sum_over_shards(totals)
        if not totals.isfinite().all():
            name = self._names[int((~totals.isfinite()).nonzero()[0])]
            raise RuntimeError(f"Fisher of {self._name}: the gradient of {name} is not finite")
        self._tell_of_zeros([name for name, total in zip(self._names, totals, strict=True) if total == 0])

    def _tell_of_zeros(self, without: list[str]) -> None:
        if len(without) == len(self._names):
            problem = f"no row gave a gradient to {self._names[0]} or any other parameter"
            raise RuntimeError(f"Fisher of {self._name}: {problem}")
        if without:
            _logger.warning(
                "Fisher of %s: no row gave a gradient to %s (%d in all): EWC will not hold them",
                self._name,
                without[0],
                len(without),
            )


def estimate_fisher(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    rows: Dataset,
    collator: Callable[[Any], dict[str, Tensor]],
    *,
    folder: Path,
    facts: Mapping[str, Any],
) -> None:
    """Estimate the Fisher of ``model`` and save it. Call it on every process.

    It runs as a training with one row per step, learning rate 0 and no dropout, on the engine and in the
    precision of ``arguments``. Every process takes the same row, so the reduced gradient is that of the row,
    and the result does not depend on the number of processes. Beyond the memory of a training, each process
    keeps fp32 values of the shards that it owns.

    Args:
        model: the model, loaded for this call; its dropout stays off afterwards.
        arguments: arguments of the training that will use the Fisher; not changed.
        rows: rows with ``input_ids`` and ``labels``.
        collator: makes a batch of one row.
        folder: where the Fisher is saved, see :func:`sfa_hf.fisher.folder.save_fisher`.
        facts: JSON values to save with it; "task" names the rows in the log.

    Raises:
        ConfigError: fp16, whose overflows would lose rows, or no space to save the Fisher.
        NotImplementedError: the gradients of this set-up cannot be read.
        RuntimeError: no gradient arrived, or one that is not finite.
    """
    if arguments.fp16:
        raise ConfigError(
            "training.fp16", "is true: the Fisher would lose rows to overflow", "bf16, or neither"
        )
    turn_dropout_off(model)
    callback = FisherCallback(len(rows), str(facts.get("task", "the rows")))
    changes: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    if arguments.deepspeed_plugin is None:  # else its config names the optimizer
        changes |= {"optim": "sgd", "optim_args": None, "optim_target_modules": None}
    make = partial(
        _OneByOne,
        model=model,
        args=without_updates(arguments, max_steps=len(rows), **changes),
        train_dataset=rows,
        data_collator=collator,
        callbacks=[callback],
    )
    with gradient_pass(make) as trainer:
        trainer.train()
        callback.save(folder, {"estimator": ESTIMATOR, "rows": len(rows), **facts})


def turn_dropout_off(model: nn.Module) -> None:
    """Set every dropout rate to 0. Evaluation mode would not do: ZeRO-3 refuses its backward pass."""
    config = getattr(model, "config", None)
    parts = [] if config is None else [v for v in vars(config).values() if hasattr(v, "to_dict")]
    for holder in (*model.modules(), *filter(None, [config]), *parts):
        is_dropout = isinstance(holder, nn.modules.dropout._DropoutNd)
        for name, value in list(vars(holder).items()):
            if isinstance(value, float) and ("drop" in name or is_dropout):
                setattr(holder, name, 0.0)


class _OneByOne(Trainer):
    """Takes the rows one by one, each on every process. The loss is minus the log-likelihood of the row."""

    def get_train_dataloader(self) -> DataLoader:
        assert self.train_dataset is not None
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        del return_outputs, num_items_in_batch
        labels = inputs.pop("labels")[:, 1:].flatten()
        logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return cross_entropy(logits, labels, ignore_index=_IGNORED, reduction="sum")
