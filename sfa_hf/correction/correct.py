"""One pass over rows that moves the features of a merged model towards those of a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Annotated, Any, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from sfa_hf.config.declared import checked
from sfa_hf.config.options import Choice, Index, Pattern, Rate
from sfa_hf.correction.features import Mismatch, feature_mismatch, features, inputs_of
from sfa_hf.correction.parameters import default_parameters, select
from sfa_hf.errors import ConfigError, known_as
from sfa_hf.models import load_model
from sfa_hf.tasks import collator

Loss = Annotated[str, Choice(("l1", "l2"))]
LEARNING_RATE = 1e-7
"""Learning rate of the paper, for the projection of a vision model."""


@dataclass(frozen=True)
class Correction:
    """The result of a correction.

    Attributes:
        parameters: names of the trained parameters; all others keep their bits.
        before: distance of the features from those of the teacher before it; None without held-out rows.
        after: the same distance after it.
        steps: number of optimizer steps.
    """

    parameters: tuple[str, ...]
    before: Mismatch | None
    after: Mismatch | None
    steps: int


@checked
def correct(
    model: nn.Module,
    teacher: nn.Module | str | PathLike[str],
    rows: Dataset | Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | PathLike[str],
    *,
    parameters: Pattern | None = None,
    loss: Loss = "l2",
    layer: Index = -1,
    learning_rate: Rate = LEARNING_RATE,
    heldout: Dataset | Sequence[dict[str, Any]] | None = None,
    **training: Any,
) -> Correction:
    r"""Train a few parameters, in one pass, so that the features of a model match those of a teacher.

        min over phi of mean_t || h_phi(x)_t - h_teacher(x)_t ||,  phi a few of \theta, t the tokens

    The teacher is the model before the merge, or the model of the previous task. The rows are those of the
    current task. Memory beyond that of training phi: the weights of the teacher and the features of one
    batch. Both models run in evaluation mode.

    It runs on one process, under DDP and under ZeRO-0 to 2. A linearised model is corrected linearised.

    Example:
        >>> correct(merged, "runs/law/1-law/trained", rows, tokenizer, "runs/corrected", learning_rate=1e-4)

    Args:
        model: the merged model; corrected in place.
        teacher: a model, or a folder or Hub id, which is loaded in the dtype of ``model``.
        rows: training rows with ``input_ids``, e.g. from :func:`sfa_hf.tasks.encode`.
        tokenizer: pads the rows.
        output_dir: output folder of the Trainer.
        parameters: regular expression that selects the trained parameters by name; None for those that write
            the features last, see :func:`default_parameters`.
        loss: "l2" (mean squared difference) or "l1" (mean absolute difference).
        layer: layer of the features, as a position in ``hidden_states``; -1 is the input of the output head.
        learning_rate: learning rate of AdamW, > 0.
        heldout: rows to measure the mismatch on, before and after.
        training: other TrainingArguments.

    Raises:
        ConfigError: an argument is not valid, or the teacher does not fit the model.
        NotImplementedError: ZeRO-3 or FSDP, which would need the teacher in shards too.
    """
    if len(rows) == 0:
        raise ConfigError("rows", "is empty", "the training rows of the current task")
    if parameters is None and hasattr(model, "peft_config"):
        problem = "has adapters, and PEFT would save only them after a correction"
        right = "a model with merged adapters (merge_and_unload), or parameters= that names adapters"
        raise ConfigError("model", problem, right)
    chosen = select(model, default_parameters(model, layer) if parameters is None else parameters)
    target = _load_teacher(model, teacher)
    arguments = _arguments(output_dir, learning_rate, training)
    trainer = _Corrector(model, arguments, train_dataset=cast("Any", rows), data_collator=collator(tokenizer))
    _refuse_shards(trainer)
    trainer.aim(target, loss, layer)

    def mismatch() -> Mismatch | None:
        if heldout is None:
            return None
        target.to(next(model.parameters()).device)
        size = arguments.per_device_eval_batch_size
        return feature_mismatch(model, target, cast("Any", heldout), tokenizer, layer=layer, batch_size=size)

    before = mismatch()
    with _only_trained(model, chosen), _evaluating(model, target):
        trainer.train()
    return Correction(tuple(chosen), before, mismatch(), trainer.state.global_step)


class _Corrector(Trainer):
    """A Trainer whose loss is the distance between features."""

    def aim(self, teacher: nn.Module, loss: Loss, layer: int) -> None:
        self._teacher, self._distance, self._layer = teacher, _DISTANCES[loss], layer
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch: average it over batches

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        del num_items_in_batch
        model.eval()  # no dropout: the teacher has none
        batch = inputs_of(inputs, inputs["input_ids"].device)
        real = batch["attention_mask"].bool()
        self._teacher.to(real.device)
        with torch.no_grad():
            right = features(self._teacher, batch, self._layer)[real].float()
        loss = self._distance(features(model, batch, self._layer)[real].float(), right)
        return (loss, {}) if return_outputs else loss


_DISTANCES: dict[str, Any] = {"l1": nn.functional.l1_loss, "l2": nn.functional.mse_loss}


def _arguments(
    output_dir: str | PathLike[str], learning_rate: float, training: dict[str, Any]
) -> TrainingArguments:
    settings = {
        "num_train_epochs": 1,
        "weight_decay": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "use_cpu": not torch.accelerator.is_available(),
        "dataloader_pin_memory": torch.accelerator.is_available(),
        **training,
    }
    return TrainingArguments(str(output_dir), learning_rate=learning_rate, **settings)


def _refuse_shards(trainer: Trainer) -> None:
    plugin = trainer.args.deepspeed_plugin
    sharded = "ZeRO-3" if plugin is not None and plugin.zero_stage == 3 else None
    if name := "FSDP" if trainer.is_fsdp_enabled else sharded:
        supported = "one process, DDP, and DeepSpeed ZeRO-0 to 2"
        raise NotImplementedError(f"sfa_hf cannot correct features under {name}; supported: {supported}")


def _load_teacher(model: nn.Module, teacher: nn.Module | str | PathLike[str]) -> nn.Module:
    if isinstance(teacher, nn.Module):
        found = teacher
    else:
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        with known_as("teacher"):
            found = load_model(str(teacher), dtype)[0]
    width, own = (cast("Any", each).config.hidden_size for each in (found, model))
    if width != own:
        raise ConfigError("teacher", f"has features of width {width}", f"{own}, the width of the model")
    if found is model:
        raise ConfigError("teacher", "is the model itself", "another model, or the folder of one")
    return found


@contextmanager
def _only_trained(model: nn.Module, chosen: dict[str, nn.Parameter]) -> Iterator[None]:
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(requires_grad=False)
        for parameter in chosen.values():
            parameter.requires_grad = True
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad = wanted


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
