"""An edit of the reduced gradient before each step, which belongs to one training and ends with it."""

from __future__ import annotations

from collections.abc import Callable

from transformers import TrainerState

from sfa_hf.distributed.processes import from_every_process
from sfa_hf.engines import Engine, Handle
from sfa_hf.hf_trainer.caller import caller, is_training


class GradientEdit:
    """Calls a function before each optimizer step of a training.

    An exception in ``train()`` calls no callback: an edit that is left over notices that its training is not
    the one that steps, and goes.
    """

    def __init__(self) -> None:
        self._handle: Handle | None = None

    def begin(self, engine: Engine, edit: Callable[[Engine], None], state: TrainerState) -> None:
        """Call ``edit`` before each step from now on; a collective call.

        Args:
            engine: of the training that begins.
            edit: changes the gradients that the engine gives.
            state: of that training.

        Raises:
            NotImplementedError: a set-up whose gradients cannot be edited.
        """
        self.end()
        own = state if (called := caller()) and called.trainer else None

        def guarded(engine: Engine) -> None:
            if own is None or is_training(own):
                edit(engine)
            else:
                self.end()

        self._handle = from_every_process(lambda: engine.before_step(guarded))

    def end(self) -> None:
        """Call it no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
