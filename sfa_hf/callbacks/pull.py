r"""The decoupled form of L2: a pull towards \theta_o after every step, of the strength of SFA's averages."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from sfa_hf.adapters.kinds import warn_of_factors
from sfa_hf.anchor.anchored_callback import AnchoredCallback
from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.weighting import Weights
from sfa_hf.averaging import schedule
from sfa_hf.config.declared import checked
from sfa_hf.config.options import AnchorDevice, AnchorDtype, Beta, Flag, Lora, P, Pattern, Source
from sfa_hf.rules import Average


class PullCallback(AnchoredCallback):
    r"""Decoupled L2: after every optimizer step \theta <- (1 - \beta_s) \theta + \beta_s \theta_o.

        \beta_s = 1 - (1 - \beta)^{1/K},  K = max(1, pT)

    K pulls keep as much of a distance to \theta_o as one average of :class:`sfa_hf.SFACallback` with the same
    \beta and p: the control of equal strength that shows what SFA's rare merges are for. Neither clipping nor
    Adam's preconditioner acts on it. ``l2/beta_s`` and ``l2/drift`` (||\theta - \theta_o||_2) are logged when
    the Trainer logs and at the last step.

    Example:
        >>> Trainer(model, args, train_dataset=rows, callbacks=[PullCallback(beta=0.5, p=0.25)]).train()

    Args:
        beta: \beta in [0, 1].
        p: p in (0, 1], the fraction of the training after which the pulls add up to one average.
        anchor: \theta_o: None for the weights at the start of this ``train()``, or a local folder or Hub id
            with safetensors.
        anchor_device: where \theta_o is kept: "cpu", "disk" or "device". It is read in every step: "device"
            is the fastest where there is room.
        anchor_dtype: "float32", or "bfloat16" for half the memory and a rounded \theta_o.
        include: regular expression searched in parameter names; others are not pulled.
        exclude: regular expression; parameters whose names it is found in are not pulled.
        lora: as for :class:`sfa_hf.SFACallback`; "exact" needs an anchor at which adapters have no update.
        save_anchor: as for :class:`sfa_hf.SFACallback`.

    Raises:
        ConfigError: an argument that cannot be right; at the start of training, patterns that leave no
            parameter, or an anchor that does not fit the model.
        NotImplementedError: at the start of training, a set-up whose weights cannot be edited in training.
    """

    @checked
    def __init__(
        self,
        beta: Beta = 0.5,
        p: P = 0.25,
        *,
        anchor: Source | None = None,
        anchor_device: AnchorDevice = "cpu",
        anchor_dtype: AnchorDtype = "float32",
        include: Pattern | None = None,
        exclude: Pattern | None = None,
        lora: Lora = "exact",
        save_anchor: Flag = True,
    ) -> None:
        super().__init__(anchor, anchor_device, anchor_dtype, include, exclude, save_anchor=save_anchor)
        self.beta = beta
        self.p = p
        self.lora = lora

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._factors.refuse_truncation()
        if self.lora == "factors" and state.is_world_process_zero:
            warn_of_factors(kwargs["model"])
        self._beta_s = schedule.beta_of_each_step(self.beta, schedule.interval(self.p, state.max_steps))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        merged = merge(
            self._engine,
            self._shards(),
            self._theta_o,
            rule=Average(),
            weights=Weights(self._beta_s),
            seed=(args.seed, state.global_step),
            factors=self._factors,
        )
        if control.should_log or state.global_step >= state.max_steps:
            record = {"l2/beta_s": self._beta_s, "l2/drift": merged.drift_after}
            self._log.write(record, args, state, control)
