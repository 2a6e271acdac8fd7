"""What a continual-learning method is to the sequence runner."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from sfa_hf.adapters.merged import merge_into_base, stack
from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.config.options import Flag
from sfa_hf.errors import known_as
from sfa_hf.files.adapter_folder import is_adapter
from sfa_hf.methods.taken import From, names_of
from sfa_hf.tasks import Encoding, Row, Task

PLAIN = "plain"
"""``Method.first_training`` of those that fine-tune on the first task and do nothing else."""
CARRY = ("carry",)
"""``Method.ADAPTERS`` of those that train one adapter through all tasks, or whole models of their own."""


@dataclass(frozen=True)
class Stage:
    """One task of a sequence, as a method sees it.

    Attributes:
        index: position k of the task in the sequence, from 0.
        tasks: every task of the sequence, in order.
        base: folder of the model that the sequence starts from.
        folder: this task's part of the run folder.
        past: the stages before, all trained.
        seed: the run's.
        after_task: what becomes of the stage's adapter, as in ``model.peft``; None where weights are trained.
        dtype: of the weights in training.
    """

    index: int
    tasks: tuple[Task, ...]
    base: str
    folder: Path
    past: tuple[Stage, ...] = ()
    seed: int = 0
    after_task: str | None = None
    dtype: str = "float32"

    @property
    def task(self) -> Task:
        """The task of this stage."""
        return self.tasks[self.index]

    @property
    def start(self) -> str:
        """The model that the task before left, or the base."""
        return str(self.past[-1].model) if self.past and self.after_task != "new" else self.base

    @property
    def anchor(self) -> str | None:
        r"""Where \theta_o lies. None for the weights that training starts with: those of a new adapter."""
        carried = self.after_task == "carry" and (self.past or is_adapter(self.base))
        return self.start if self.after_task is None or carried else None

    @property
    def model(self) -> Path:
        """Folder of the model that is scored, once the stage is done."""
        return self.folder / "model"

    @property
    def trained(self) -> Path:
        """Folder of the weights as training left them, where :meth:`Method.deployed` makes another model."""
        return self.folder / "trained"


@dataclass(frozen=True)
class Preparation:
    """What there is to work with before a stage's training.

    Attributes:
        stage: the one that will be trained.
        arguments: its TrainingArguments.
        encoding: how rows become tokens.
        load: loads the model and the tokenizer of a folder, as the stage's training would.
    """

    stage: Stage
    arguments: TrainingArguments
    encoding: Encoding
    load: Callable[[str], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


class Method(BaseModel, ABC):
    """A continual-learning method. Its fields are its options; ``name`` selects it in a config.

    A subclass adds fields and overrides what it changes about plain sequential fine-tuning, which is what
    this class does. Options of a callback are declared in the callback's constructor alone, and taken over
    by ``class EMA(Method, takes=From(EMACallback))``. Everything is called on every process of a launch. A
    ConfigError that it raises names an option as ``beta``, not ``method.beta``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    KEEPS: ClassVar[tuple[str, ...]] = ()
    """Names of what a stage's training leaves in its folder beside the model, for the stages after it."""
    STATISTICS: ClassVar[int] = 0
    """How many fp32 values per weight a stage leaves on the disk, for the run's check of room."""

    TAKEN: ClassVar[tuple[From, ...]] = ()
    """Whose options the method has beside its own fields."""

    ADAPTERS: ClassVar[tuple[str, ...]] = ()
    """Values of ``model.peft.after_task`` that the method works with, its default first; () where it trains
    weights alone."""
    NEEDS_ADAPTERS: ClassVar[bool] = False
    """Whether the method trains adapters alone."""

    name: str

    def __init_subclass__(cls, *, takes: From | tuple[From, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not takes:
            return
        cls.TAKEN = takes if isinstance(takes, tuple) else (takes,)
        for name, (annotation, field) in (pair for each in cls.TAKEN for pair in each.fields().items()):
            if name in cls.__annotations__:
                raise TypeError(f"{cls.__name__}.{name} is declared twice")
            cls.__annotations__[name] = annotation
            setattr(cls, name, field)

    def taken(self, source: Callable[..., Any]) -> dict[str, Any]:
        """The arguments of a callback, or another source of options, that the method's fields stand for.

        Those that are None are left out: the source has its own default.
        """
        fields = {option.name: name for each in self.TAKEN for name, option in each.options().items()}
        own = {name: getattr(self, fields[name]) for name in names_of(source) if name in fields}
        return {name: value for name, value in own.items() if value is not None}

    def make(self, callback: Callable[..., TrainerCallback], **given: Any) -> TrainerCallback:
        """Build a callback from the method's options.

        Args:
            callback: whose options the method takes.
            given: its other arguments.

        Raises:
            ConfigError: options that do not go together, by the method's names.
        """
        with known_as({key: name for each in self.TAKEN for key, name in each.keys().items()}):
            return callback(**self.taken(callback), **given)

    def check(self) -> None:
        """Raise ConfigError for option values that do not go together, before anything is loaded.

        Options of a callback are checked together without it: :meth:`callbacks` is called for an example.
        """

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError where the model to train, still without values (on "meta"), does not suit."""

    def check_adapters(self, options: AdapterOptions, after_task: str) -> None:
        """Raise ConfigError where the method's options do not suit adapters like these.

        Args:
            options: of ``model.peft``.
            after_task: one of :attr:`ADAPTERS`.
        """

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Raise ConfigError where the sequence's data does not suit the method."""

    def training(self, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Change the TrainingArguments fields, a mapping a task; by default they stay as they are.

        Raises:
            ConfigError: the method cannot train with them.
        """
        return [dict(fields) for fields in tasks]

    @property
    def first_training(self) -> str | None:
        """Methods that give the same name train the first task alike: a comparison trains it once for all.

        None where no other method does.
        """
        return None

    def trains(self, stage: Stage) -> bool:
        """Whether a stage is trained; where it is not, the model of the stage before is its model."""
        del stage
        return True

    def start(self, stage: Stage) -> str:
        """Folder of the weights that a stage's training starts from."""
        return stage.start

    def prepare(self, preparation: Preparation) -> None:
        """Make what a stage's training needs of the past, in the past stages' folders.

        Called before every training, also one that resumes: what is there already stays.
        """

    def adapted(self, model: PreTrainedModel, base: str) -> PreTrainedModel:
        """A model that was loaded to be trained or scored, as the method sees it.

        Args:
            model: as its folder holds it; may be changed in place.
            base: folder of the model that the sequence starts from.
        """
        del base
        return model

    def rows(self, stage: Stage) -> list[Row]:
        """The rows that a stage trains on, in a fixed order."""
        return stage.task.train_rows()

    def callbacks(self, stage: Stage) -> list[TrainerCallback]:
        """Trainer callbacks for one stage; a callback's ``nbytes`` is counted as the method's memory.

        Also called to check options, for stages of which no file is there.
        """
        del stage
        return []

    def deployed(self, stage: Stage) -> dict[str, Any] | None:
        """The recipe (docs/merging.md) that makes a stage's model of saved ones.

        None where the weights that training left are the model. Otherwise they are kept as
        ``stage.trained``, and the recipe may name them.
        """
        del stage
        return None

    def combines(self, stage: Stage) -> Callable[[Path], None] | None:
        """What makes a stage's model of the adapter that training left, ``stage.trained``, and those before.

        Called on the first process with the folder to make. None where there is no adapter, or it is the
        model, or :meth:`deployed` makes it.
        """
        if stage.after_task == "merge":
            return partial(merge_into_base, stage.trained, dtype=stage.dtype)
        if stage.after_task == "keep" and (stage.past or is_adapter(stage.base)):
            return partial(stack, Path(stage.start), stage.trained)
        return None

    def finishes(self, stage: Stage) -> bool:
        """Whether :meth:`finish` has something to do to a stage's model."""
        del stage
        return False

    def finish(self, preparation: Preparation, folder: Path) -> None:
        """Change the model that a stage's training, or :meth:`deployed`, left, before it is the stage's.

        Args:
            preparation: as for :meth:`prepare`.
            folder: holds the model, and what is saved there is scored.
        """


class FromSecondTask(Method):
    r"""A method that works from the second task on.

    Attributes:
        first_task: work in the first task too, whose \theta_o is the base model. The paper's runs do not:
            their first anchor is the model trained on the first task.
    """

    first_task: Flag = False

    @property
    def first_training(self) -> str | None:
        return None if self.first_task else PLAIN

    def works_in(self, stage: Stage) -> bool:
        """Whether the method does anything in a stage beyond plain training."""
        return stage.index > 0 or self.first_task
