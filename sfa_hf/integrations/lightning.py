"""SFA as a callback of PyTorch Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sfa_hf.averaging.averaging import Averaging
from sfa_hf.averaging.loop import SFA
from sfa_hf.config.declared import passes_on
from sfa_hf.errors import ConfigError


class SFALightning(Callback):
    """Averages a module's weights with its weights at the start: :class:`sfa_hf.SFA` in Lightning's loop.

    A merge is done when a batch ends, before checkpoints of that step are written. It is logged to all
    loggers. The weights at the start are saved in ``default_root_dir/_sfa_anchor``, so that a checkpoint can
    be resumed from there.

    Example:
        >>> Trainer(max_steps=1000, callbacks=[SFALightning(beta=0.5, p=0.25)]).fit(module, batches)

    Raises:
        ConfigError: an argument that cannot be right; at the start of the fit, no number of steps, or several
            optimizers.
        NotImplementedError: at the start of the fit, a set-up whose weights cannot be edited.
    """

    @passes_on(Averaging.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        """Options of :class:`sfa_hf.SFACallback`."""
        Averaging(*args, **options)  # checks them
        self._args, self._options = args, options
        self._sfa: SFA | None = None
        self._recorded: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise ConfigError("max_steps", f"{steps} optimizer steps", "max_steps or max_epochs")
        if len(trainer.optimizers) != 1:
            raise ConfigError("configure_optimizers", f"{len(trainer.optimizers)} optimizers", "one")

        def log(values: Mapping[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(dict(values), step)

        self._sfa = SFA(
            *self._args,
            total_steps=int(steps),
            output_dir=trainer.default_root_dir,
            log=log,
            **self._options,
        )
        if self._recorded:
            self._sfa.load_state_dict(self._recorded)
        self._sfa.attach(pl_module, trainer.optimizers[0])

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        assert self._sfa is not None
        if trainer.global_step > self._sfa.state_dict()["step"]:  # not while gradients are accumulated
            self._sfa.step()

    def on_train_end(self, *_: Any) -> None:
        assert self._sfa is not None
        self._sfa.end()

    def state_dict(self) -> dict[str, Any]:
        return self._recorded if self._sfa is None else self._sfa.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._recorded = state_dict
