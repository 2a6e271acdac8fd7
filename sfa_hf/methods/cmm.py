"""CMM, continual model merging in three stages (arXiv 2509.23592)."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from accelerate import PartialState
from pydantic import Field
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from sfa_hf.callbacks.last_weights import KeepLastWeights
from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.config.checks import check_pattern
from sfa_hf.correction import correct
from sfa_hf.correction.correct import LEARNING_RATE
from sfa_hf.errors import ConfigError
from sfa_hf.linearised import linearise
from sfa_hf.methods.base import Method, Preparation, Stage
from sfa_hf.moments.callback import SecondMomentsCallback
from sfa_hf.moments.folder import FOLDER
from sfa_hf.tasks import encode

PRE_MERGE = "pre_merge"
_SAME = ("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16", "use_cpu", "seed")
"""TrainingArguments that a correction takes from the task's training, beside the engine's."""


class CMM(Method):
    r"""Linearised fine-tuning, a merge weighed by optimizer states, and a correction of features.

    1. Every task trains f_lin(x; \theta) = f(x; \theta_0) + J f(x; \theta_0) (\theta - \theta_0), from the
       merged weights of the task before; \theta_0 is the sequence's base. Models are scored linearised.
    2. At its last step \theta <- ((1-\alpha) \bar F \theta_o + \alpha F \theta) / ((1-\alpha) \bar F +
       \alpha F), with F Adam's second moment, \bar F that of the tasks before, \theta_o their model.
    3. One pass over its rows, or over as many of them as the task's steps took, trains a few parameters so
       that the features match a teacher's.

    Attributes:
        alpha: \alpha, weight of the new task.
        power: q, of F in the merge; 1 in the paper.
        linearised: whether there is a first stage.
        correction: the teacher of the third stage: the model before the merge, or the previous task's;
            "none" leaves the stage out.
        correction_loss: l2 or l1.
        correction_learning_rate: of AdamW.
        correction_parameters: regular expression; None: the final norm and the last output projection.
        correction_layer: whose features are matched.
        anchor_device: where \theta_o and \bar F are kept.
    """

    KEEPS: ClassVar[tuple[str, ...]] = (FOLDER,)
    STATISTICS: ClassVar[int] = 1

    name: Literal["cmm"] = "cmm"
    alpha: float = Field(default=0.4, ge=0, le=1)
    power: float = 1.0
    linearised: bool = True
    correction: Literal["pre_merge", "previous", "none"] = "pre_merge"
    correction_loss: Literal["l1", "l2"] = "l2"
    correction_learning_rate: float = Field(default=LEARNING_RATE, gt=0)
    correction_parameters: str | None = None
    correction_layer: int = -1
    anchor_device: Literal["cpu", "disk", "device"] = "cpu"

    def check(self) -> None:
        try:
            self._merge("")
            check_pattern("correction_parameters", self.correction_parameters)
        except ConfigError as error:
            raise ConfigError(f"method.{error.key}", error.problem, error.right) from error

    @property
    def first_task(self) -> str | None:
        return f"linearised, {FOLDER}" if self.linearised else FOLDER

    def adapted(self, model: PreTrainedModel, base: str) -> PreTrainedModel:
        return linearise(model, base) if self.linearised else model

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        if not stage.past:
            return [SecondMomentsCallback()]
        kept = [KeepLastWeights(stage.folder / PRE_MERGE)] if self.correction == "pre_merge" else []
        return [*kept, self._merge(stage.start, str(stage.past[-1].folder / FOLDER))]

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
            parameters=self.correction_parameters,
            loss=self.correction_loss,
            layer=self.correction_layer,
            learning_rate=self.correction_learning_rate,
            **_same(preparation.arguments, len(rows)),
        )
        if PartialState().is_main_process:
            model.save_pretrained(folder)
            for spare in (before_merge, stage.folder / "correction"):
                shutil.rmtree(spare, ignore_errors=True)
        PartialState().wait_for_everyone()

    def _merge(self, anchor: str, moments: str | None = None) -> SFACallback:
        return SFACallback(
            1 - self.alpha,
            1.0,
            rule="fisher",
            power=self.power,
            anchor=anchor or None,
            anchor_moments=moments,
            anchor_device=self.anchor_device,
        )


def _same(arguments: TrainingArguments, rows: int) -> dict[str, Any]:
    """A correction's TrainingArguments: the task's batches, on its engine, and no more than it took."""
    engine = {"deepspeed": arguments.deepspeed} if arguments.deepspeed else {}
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    shorter = 0 < arguments.max_steps < math.ceil(rows / batch)
    steps = {"max_steps": arguments.max_steps} if shorter else {}
    return {**{name: getattr(arguments, name) for name in _SAME}, "disable_tqdm": True, **steps, **engine}
