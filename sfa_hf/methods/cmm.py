"""CMM, continual model merging in three stages (arXiv 2509.23592)."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from sfa_hf.callbacks.last_weights import KeepLastWeights
from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.config.options import Flag, Fraction
from sfa_hf.correction import correct
from sfa_hf.correction.parameters import default_parameters, select
from sfa_hf.errors import known_as
from sfa_hf.linearised import linearise
from sfa_hf.methods.base import Method, Preparation, Stage
from sfa_hf.methods.taken import From
from sfa_hf.moments.callback import SecondMomentsCallback
from sfa_hf.moments.folder import FOLDER, moments_in
from sfa_hf.tasks import encode

PRE_MERGE = "pre_merge"
_SAME = ("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16", "use_cpu", "seed")
"""TrainingArguments that a correction takes from the task's training, beside the engine's."""


_CORRECTION = {
    "loss": "correction_loss",
    "learning_rate": "correction_learning_rate",
    "parameters": "correction_parameters",
    "layer": "correction_layer",
}
_OPTIONS = (
    From(SFACallback, only=("power", "anchor_device"), defaults={"power": 1.0}),
    From(correct, only=tuple(_CORRECTION), names=_CORRECTION),
)


class CMM(Method, takes=_OPTIONS):
    r"""Linearised fine-tuning, a merge weighted by optimizer states, and a correction of features.

    1. Every task trains f_lin(x; \theta) = f(x; \theta_0) + J f(x; \theta_0) (\theta - \theta_0), from the
       merged weights of the task before; \theta_0 is the sequence's base. Models are scored linearised.
    2. At its last step \theta <- ((1-\alpha) \bar F \theta_o + \alpha F \theta) / ((1-\alpha) \bar F +
       \alpha F), with F Adam's second moment, \bar F that of the tasks before, \theta_o their model.
    3. One pass over its rows, or over as many of them as the task's steps took, trains a few parameters so
       that the features match a teacher's.

    Attributes:
        alpha: \alpha, weight of the new task.
        linearised: whether there is a first stage.
        correction: the teacher of the third stage: the model before the merge, or the previous task's;
            "none" leaves the stage out.
    """

    KEEPS: ClassVar[tuple[str, ...]] = (FOLDER,)
    STATISTICS: ClassVar[int] = 1

    name: Literal["cmm"] = "cmm"
    alpha: Fraction = 0.4
    linearised: Flag = True
    correction: Literal["pre_merge", "previous", "none"] = "pre_merge"

    def check_model(self, model: nn.Module) -> None:
        if self.correction != "none":
            options = self.taken(correct)
            with known_as(_CORRECTION):
                select(model, options.get("parameters") or default_parameters(model, options["layer"]))

    @property
    def first_training(self) -> str | None:
        return f"linearised, {FOLDER}" if self.linearised else FOLDER

    def adapted(self, model: PreTrainedModel, base: str) -> PreTrainedModel:
        return linearise(model, base) if self.linearised else model

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if not stage.past:
            return [SecondMomentsCallback()]
        kept = [KeepLastWeights(stage.folder / PRE_MERGE)] if self.correction == "pre_merge" else []
        moments = str(moments_in(stage.past[-1].folder))
        merge = self.make(
            SFACallback,
            beta=1 - self.alpha,
            p=1.0,
            rule="fisher",
            anchor=stage.start,
            anchor_moments=moments,
        )
        return [*kept, merge]

    def finishes(self, stage: Stage) -> bool:
        return bool(stage.past) and self.correction != "none"

    def finish(self, preparation: Preparation, folder: Path) -> None:
        """Correct the merged model that lies in ``folder``."""
        stage = preparation.stage
        before_merge = stage.folder / PRE_MERGE
        model, tokenizer = preparation.load(str(folder))
        rows, _ = encode(self.rows(stage), tokenizer, preparation.encoding)
        teacher, _ = preparation.load(str(before_merge) if self.correction == "pre_merge" else stage.start)
        self.adapted(model, stage.base)
        correct(
            model,
            self.adapted(teacher, stage.base),
            rows,
            tokenizer,
            stage.folder / "correction",
            **self.taken(correct),
            **_same(preparation.arguments, len(rows)),
        )
        if PartialState().is_main_process:
            model.save_pretrained(folder)
            for spare in (before_merge, stage.folder / "correction"):
                shutil.rmtree(spare, ignore_errors=True)
        PartialState().wait_for_everyone()


def _same(arguments: TrainingArguments, rows: int) -> dict[str, Any]:
    """A correction's TrainingArguments: the task's batches, on its engine, and no more than it took."""
    engine = {"deepspeed": arguments.deepspeed} if arguments.deepspeed else {}
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    shorter = 0 < arguments.max_steps < math.ceil(rows / batch)
    steps = {"max_steps": arguments.max_steps} if shorter else {}
    return {**{name: getattr(arguments, name) for name in _SAME}, "disable_tqdm": True, **steps, **engine}
