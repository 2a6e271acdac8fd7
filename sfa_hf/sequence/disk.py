"""The room that a run takes on the disk: said before it begins, and checked."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import SaveStrategy

from sfa_hf.errors import ConfigError

logger = logging.getLogger(__name__)

_ADAM_BYTES = 8
"""Two fp32 moments a parameter."""
_MASTER_BYTES = 4
"""DeepSpeed's fp32 weights, beside the ones of the model."""
_STATISTIC_BYTES = 4
"""An fp32 value for each weight, such as EWC's F."""


@dataclass(frozen=True)
class DiskNeed:
    """What is still to be written, at its largest.

    Attributes:
        model: bytes of one saved model.
        checkpoint: bytes of one checkpoint: model, and optimizer with Adam's moments.
        models: how many tasks are still to be trained.
        checkpoints: how many are there at once: those kept, and the one that is being written.
        statistics: bytes of what the method keeps of all these tasks beside their models.
        adapters: bytes of all adapters that will be saved, without those in checkpoints.
    """

    model: int
    checkpoint: int
    models: int
    checkpoints: int
    statistics: int = 0
    adapters: int = 0

    @property
    def total(self) -> int:
        kept = self.models * self.model + self.adapters + self.statistics
        return kept + self.checkpoints * self.checkpoint

    def __str__(self) -> str:
        models = f"{self.models} models of {_gib(self.model)}"
        adapters = f", {_gib(self.adapters)} of adapters" if self.adapters else ""
        statistics = f", {_gib(self.statistics)} of the method's own" if self.statistics else ""
        checkpoints = f"{self.checkpoints} checkpoints of about {_gib(self.checkpoint)}"
        parts = f"{models}{adapters}{statistics}, {checkpoints} while a task trains"
        return f"about {_gib(self.total)} of disk ({parts})"


def disk_need(
    model_bytes: int,
    itemsize: int,
    models: int,
    kept: int,
    arguments: TrainingArguments,
    *,
    statistics: int = 0,
    adapter: int | None = None,
    adapters: int = 0,
) -> DiskNeed:
    """Work out what a run needs.

    Args:
        model_bytes: of one saved model.
        itemsize: bytes of one of its weights.
        models: whole ones, still to be saved.
        kept: checkpoints kept of a task in training.
        arguments: of a task.
        statistics: fp32 values per trained weight that the method will leave beside all the models.
        adapter: bytes of the adapter that is trained, in fp32; None where the model's weights are.
        adapters: how many of them will be saved.
    """
    saves = arguments.save_strategy != SaveStrategy.NO
    optimizer = _ADAM_BYTES + (_MASTER_BYTES + itemsize if arguments.deepspeed_plugin else 0)
    trained = model_bytes if adapter is None else adapter
    weights = trained // (itemsize if adapter is None else _MASTER_BYTES)
    checkpoint = trained + weights * optimizer
    checkpoints = kept + 1 if saves and (models or adapters) else 0
    own = statistics * weights * _STATISTIC_BYTES
    return DiskNeed(model_bytes, checkpoint, models, checkpoints, own, adapters * (adapter or 0))


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of the trained parameters of a model with adapters, in fp32."""
    return sum(weight.numel() * _MASTER_BYTES for weight in model.parameters() if weight.requires_grad)


def safetensors_bytes(folder: str) -> int:
    """Bytes of a saved model's weights."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def check_room(output_dir: Path, need: DiskNeed, held: int = 0) -> None:
    """Log what is needed and what is free.

    Args:
        output_dir: the run's folder, which may not be there yet.
        need: what is still to be written.
        held: bytes of it that are on the disk already: checkpoints that will be resumed from or removed.

    Raises:
        ConfigError: there is less.
    """
    place = next(folder for folder in (output_dir, *output_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free + held
    logger.info("%s; %s are free", need, _gib(free))
    if free < need.total:
        right = "more room, fewer training.save_total_limit, or training.save_strategy=no"
        raise ConfigError("output_dir", f"{output_dir} needs {need} and has {_gib(free)}", right)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
