"""What would fail at a later task, found before the first: every stage's callbacks look at the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn
from transformers import PreTrainedModel

from sfa_hf.adapters.new import new_adapter
from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.errors import ConfigError, under
from sfa_hf.methods import Method, Stage
from sfa_hf.models import model_without_values
from sfa_hf.models.loading import KEY
from sfa_hf.shards.read_back import unreadable_tensor


@runtime_checkable
class ChecksModel(Protocol):
    """A callback that can say before a training whether its options suit the model."""

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError where they do not."""


def dry_run(
    method: Method, stages: Iterable[Stage], base: str, adapters: AdapterOptions | None = None
) -> nn.Module:
    """Let a method, and its callbacks of every stage, look at the model's names and shapes.

    Args:
        method: of the run.
        stages: those that are not trained yet; no file of them needs to be there.
        base: folder or Hub id of the model; its weights are not read.
        adapters: that are put on the model, in place of training its weights.

    Returns:
        The model without values, on "meta", as it will be trained.

    Raises:
        ConfigError: an option does not suit the model, or a stage could not read the model of the one before.
    """
    plain = model_without_values(base)
    model = plain if adapters is None else new_adapter(plain, adapters, "")
    trained = [stage for stage in stages if method.trains(stage)]
    callbacks = [callback for stage in trained for callback in method.callbacks(stage)]
    with under("method"):
        method.check_model(model)
        for callback in callbacks:
            if isinstance(callback, ChecksModel):
                callback.check_model(model)
    if adapters is None and any(getattr(callback, "anchor", None) is not None for callback in callbacks):
        _check_anchor(plain)
    return model


def _check_anchor(model: PreTrainedModel) -> None:
    """A task's anchor is read from the files of the model before, slice by slice."""
    tensor = unreadable_tensor(model)
    if tensor is not None:
        problem = (
            f"{tensor} of {type(model).__name__} could not be read as an anchor from the model's own files"
        )
        raise ConfigError(KEY, problem, "a model that reads what it saves, or method.name=sequential")
