r"""What every callback with an anchor does: \theta_o is taken as a Trainer's training begins or resumes."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from sfa_hf.anchor.anchored import Anchored, Began
from sfa_hf.anchor.taker import recorded_anchor
from sfa_hf.hf_trainer.renamed_tensors import resumed_checkpoint
from sfa_hf.hf_trainer.weights_callback import WeightsCallback


class AnchoredCallback(Anchored, WeightsCallback, ExportableState):
    """Takes the anchor in ``on_train_begin``, and lets it go in ``on_train_end``.

    A subclass declares all options in its constructor and keeps each under its own name. With
    ``anchor=None``, ``save_anchor`` saves the weights at the start in ``output_dir/_sfa_anchor``, once and
    sharded, where the training saves checkpoints: it can then resume.
    """

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
            self._take_from_trainer(kwargs["model"], args, state)
        else:
            self._factors = self._taker.factors  # as of the anchor that is there

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, **kwargs)
        self._release_anchor()

    def _take_from_trainer(self, model: Any, args: TrainingArguments, state: TrainerState) -> None:
        began = None
        if state.global_step > 0:
            saved = state.stateful_callbacks.get(type(self).__name__)
            recorded = recorded_anchor(saved, self._patterns())
            began = Began(recorded, resumed_checkpoint(args, state))
        saves = args.save_strategy != SaveStrategy.NO
        self._take_anchor(model, str(args.output_dir), args.process_index, began=began, saves=saves)
        # Trainer looks the entry up at each save: a checkpoint of a training without this callback lacks it.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
