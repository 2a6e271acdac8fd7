r"""What every callback with an anchor does: which parameters it is about, and \theta_o, also on a resume."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from os import PathLike, fspath
from typing import Any

from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from sfa_hf import engines
from sfa_hf.adapters.groups import find_groups
from sfa_hf.anchor.factors import Factors
from sfa_hf.anchor.taker import AnchorTaker, recorded_anchor
from sfa_hf.config.patterns import Pattern, compiled
from sfa_hf.errors import ConfigError, under
from sfa_hf.hf_trainer.renamed_tensors import resumed_checkpoint
from sfa_hf.hf_trainer.weights_callback import WeightsCallback


class AnchoredCallback(WeightsCallback, ExportableState):
    r"""Holds \theta_o of this rank's shards while a training lasts, the same one after a resume.

    A subclass declares all options in its constructor and keeps each under its own name. It does its work
    between ``on_train_begin`` and ``on_train_end``, with ``_engine``, ``_theta_o``, ``_shards()``, ``_log``
    and ``_names``: those of its parameters, in one order on all ranks. To merge adapters as updates of the
    weights, it sets ``lora`` to "exact": ``_factors`` are theirs then, and ``_theta_o`` has the layout of
    ``_factors.places``.

    Args:
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a local folder or Hub id
            with safetensors.
        anchor_device: where \theta_o is kept: "cpu" (page-locked where there is a GPU), "disk" (a mapped file
            in ``output_dir``), "device", or another store of ``sfa_hf/shards/stores/``.
        anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
        include: regular expression searched in parameter names; others are left alone.
        exclude: regular expression; parameters whose names it is found in are left alone.
        save_anchor: with ``anchor=None``, save the weights at the start in ``output_dir/_sfa_anchor``, once
            and sharded, where the training saves checkpoints: it can then resume.
    """

    def __init__(
        self,
        anchor: str | PathLike[str] | None,
        anchor_device: str,
        anchor_dtype: str,
        include: str | None,
        exclude: str | None,
        *,
        save_anchor: bool,
    ) -> None:
        self.anchor = None if anchor is None else fspath(anchor)
        self.anchor_device = anchor_device
        self.anchor_dtype = anchor_dtype
        self.include = None if include is None else compiled(include)
        self.exclude = None if exclude is None else compiled(exclude)
        self.save_anchor = save_anchor
        self.lora = "factors"
        self.anchor_record: dict[str, Any] | None = None
        self.nbytes = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: its arguments, and which weights its anchor was."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {
            "args": {**arguments, **self._patterns()},
            "attributes": {"anchor_record": self.anchor_record},
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.check_model(kwargs["model"])
        super().on_train_begin(args, state, control, **kwargs)
        if not self._begins_again:
            if hasattr(self, "_taker"):  # of a training that an exception ended
                self._taker.release()
            self._take_anchor(kwargs["model"], args, state)
        else:
            self._factors = self._taker.factors  # as of the anchor that is there

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, **kwargs)
        del self._theta_o
        self._taker.release()

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError where the patterns leave no trainable parameter of the model, also on "meta"."""
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._names = [name for name in names if self._concerns(name)]
        if not self._names:
            argument = "include" if self.exclude is None else "exclude"
            problem = (
                f"include={_text(self.include)}, exclude={_text(self.exclude)} leave no trainable parameter"
            )
            raise ConfigError(argument, problem, f"patterns for names like {', '.join(names[:3])}")
        self._factors = Factors(find_groups(model, self._concerns) if self.lora == "exact" else ())

    def _take_anchor(self, model: nn.Module, args: TrainingArguments, state: TrainerState) -> None:
        shards, engine = self._shards(), self._engine
        output_dir = str(args.output_dir)
        self._taker: AnchorTaker = AnchorTaker(
            self.anchor,
            self.anchor_device,
            self.anchor_dtype,
            output_dir,
            args.process_index,
            factors=self._factors,
        )
        saved = state.stateful_callbacks.get(type(self).__name__)
        try:
            if state.global_step > 0:
                recorded = recorded_anchor(saved, self._patterns())
                self._theta_o, record = self._taker.take_again(
                    engine, model, shards, recorded, resumed_checkpoint(args, state)
                )
            else:
                self._theta_o, record = self._taker.take(engine, model, shards)
            self._factors.begin(engine, shards, self._theta_o)
            saves = self.save_anchor and args.save_strategy != SaveStrategy.NO
            if state.global_step == 0 and self.anchor is None and saves:
                self._taker.save(engine, self._theta_o, record)
        except BaseException:
            self._taker.release()
            raise
        self.nbytes = self._theta_o.nbytes
        self.anchor_record = asdict(record)
        # Trainer looks the entry up at each save: a checkpoint of a training without this callback lacks it.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def _patterns(self) -> dict[str, str | None]:
        pairs = {"include": self.include, "exclude": self.exclude}
        return {key: None if pattern is None else pattern.pattern for key, pattern in pairs.items()}

    def _shards(self) -> list[engines.Shard]:
        return [shard for shard in self._engine.shards() if self._concerns(shard.name)]

    def _concerns(self, name: str) -> bool:
        with under("exclude"):
            if self.exclude is not None and self.exclude.found_in(name):
                return False
        with under("include"):
            return self.include is None or self.include.found_in(name)


def _text(pattern: Pattern | None) -> str:
    return "None" if pattern is None else repr(pattern.pattern)
