r"""O-LoRA's penalty: the rows of A are kept orthogonal to those of the adapters of tasks before."""

from __future__ import annotations

from collections.abc import Iterator
from os import fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.adapters.groups import full_shape
from sfa_hf.adapters.kinds import tuner_layers
from sfa_hf.adapters.merged import read_adapter
from sfa_hf.config.declared import checked
from sfa_hf.config.options import Source, Strength
from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines import Engine
from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.gradient_edit import GradientEdit
from sfa_hf.hf_trainer.weights_callback import WeightsCallback

_RIGHT = "LoRA on linear layers, and the adapters of the tasks before on the same ones"


class OrthogonalCallback(WeightsCallback):
    r"""Trains on L + \lambda sum over layers of ||A_past A^T||_1 (O-LoRA, arXiv 2310.14152).

    A_past holds the rows of A of all adapters before, one below the other, and ||.||_1 sums the absolute
    entries, as in the authors' code; their Eq. 8 sums squares. The gradient \lambda sign(A A_past^T) A_past
    is added to the reduced gradient of each step, before clipping. A is gathered for it.

    ``olora/overlap`` (the sum above, without \lambda) is logged when the Trainer logs and at the last step.

    Args:
        past: folder of the adapters before, as one adapter (:func:`sfa_hf.adapters.merged.stack`).
        lambda_: \lambda, finite and not negative.

    Raises:
        ConfigError: at the start of training, layers with other adapters than LoRA on a linear layer, or
            that ``past`` lacks.
        NotImplementedError: at the start of training, a set-up whose gradients cannot be edited.
    """

    @checked
    def __init__(self, past: Source, lambda_: Strength = 0.5) -> None:
        self.past = fspath(past)
        self.lambda_ = lambda_
        self.nbytes = 0
        self._edit = GradientEdit()

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError where a layer's adapter is not A and B of a linear layer; also on "meta"."""
        for name, layer in tuner_layers(model):
            if not len(getattr(layer, "lora_A", ())):
                raise ConfigError("name", f"{name} has no A and B of a linear layer", _RIGHT)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._edit.end()  # of a training that an exception ended
        super().on_train_begin(args, state, control, **kwargs)
        model = kwargs["model"]
        trained = {name: full_shape(p) for name, p in model.named_parameters() if p.requires_grad}
        self._shapes = {name: shape for name, shape in trained.items() if ".lora_A." in name}
        self._past = from_every_process(lambda: dict(self._read()))
        self.nbytes = sum(rows.nbytes for rows in self._past.values())
        self._edit.begin(self._engine, self._add_gradient, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_log or state.global_step >= state.max_steps:
            rows = self._gathered(self._engine)
            overlap = sum(float((a @ self._past[name].mT).abs().sum()) for name, a in rows.items())
            self._log.write({"olora/overlap": overlap}, args, state, control)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._edit.end()
        super().on_train_end(*args, **kwargs)

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """A_past of each layer, in fp64, by the name of the trained A."""
        stored, _ = read_adapter(Path(self.past))
        for name, shape in self._shapes.items():
            layer = name.partition(".lora_A.")[0]
            rows = stored.get(f"{layer}.lora_A.weight")
            if rows is None or rows.shape[1:] != shape[1:]:
                raise ConfigError("past", f"{self.past} has no A of {layer}", _RIGHT)
            yield name, rows.double()

    @torch.no_grad()
    def _gathered(self, engine: Engine) -> dict[str, Tensor]:
        """Every A, whole and in fp64, on the host; one collective call."""
        places, end = {}, 0
        for name, shape in self._shapes.items():
            places[name] = end
            end += shape.numel()
        flat = torch.zeros(end, dtype=torch.float64)
        for shard in engine.shards():
            if shard.name in places:
                start = places[shard.name] + shard.offset
                flat[start : start + shard.data.numel()] = shard.data.double().cpu()
        flat = engine.sum_over_shards(flat)
        return {
            name: flat[at : at + self._shapes[name].numel()].view(self._shapes[name])
            for name, at in places.items()
        }

    def _add_gradient(self, engine: Engine) -> None:
        rows = self._gathered(engine)
        for shard in engine.shards():
            gradient = engine.gradient(shard) if shard.name in rows else None
            if gradient is not None:
                past = self._past[shard.name]
                slope = ((rows[shard.name] @ past.mT).sign() @ past).flatten()
                own = slope[shard.offset : shard.offset + shard.data.numel()]
                gradient.add_(own.to(gradient), alpha=self.lambda_)
