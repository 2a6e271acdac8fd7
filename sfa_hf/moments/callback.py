"""A callback that leaves AdamW's second moments behind: the F of a first task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.hf_trainer.weights_callback import WeightsCallback
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.folder import FOLDER, save_moments
from sfa_hf.moments.weighting import refuse_second_saver
from sfa_hf.shards.layout import by_device


class SecondMomentsCallback(WeightsCallback):
    r"""Saves F_1 = exp_avg_sq / (1 - \beta_2^t) of all trained weights when a training ends.

    For the first task of a sequence, which has no anchor yet; a task merged by ``SFACallback(rule="fisher")``
    saves its own. They go to ``output_dir/_second_moments``, sharded, and are read there by any number of
    processes.

    Example:
        >>> Trainer(model, args, train_dataset=math, callbacks=[SecondMomentsCallback()]).train()

    Raises:
        NotImplementedError: at the start of training, an optimizer without such moments, or weights (and so
            moments) in 16 bits.
        ConfigError: at the start of training, an ``SFACallback(rule="fisher")`` beside it, which saves its
            own; at the end, no room in ``output_dir``.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        refuse_second_saver(state, allowed=0)
        super().on_train_begin(args, state, control, **kwargs)
        self._moments = SecondMoments(self._engine, kwargs["optimizer"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:
            shards = by_device(self._engine.shards())
            save_moments(
                Path(str(args.output_dir), FOLDER),
                self._engine,
                shards,
                self._moments.of_shard,
                tasks=1,
                steps=self._moments.steps(shards),
                beta2=self._moments.decay,
                alpha=1.0,
            )
        super().on_train_end(args, state, control, **kwargs)
        del self._moments
