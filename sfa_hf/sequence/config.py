"""The run's configuration: a YAML file, ``key=value`` on top, everything checked before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.config.options import Seed
from sfa_hf.config.overrides import merged
from sfa_hf.config.paths import UserPath
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.config.shipped import find_config
from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.errors import ConfigError, under
from sfa_hf.evaluation import EvaluationOptions
from sfa_hf.hf_trainer.arguments import read_training
from sfa_hf.methods import DEFAULT_METHOD, Method, known_methods, make_method
from sfa_hf.tasks import DataOptions, Task, load_task


class ModelOptions(BaseModel):
    """Which model to start from.

    Attributes:
        name_or_path: a Hub id, a local folder, or ``builtin:pythia``, ``builtin:llama``, ``builtin:qwen``.
        dtype: of the weights in training, where no engine keeps fp32 master weights of its own.
        peft: LoRA adapters to train in place of the weights; None for the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    name_or_path: UserPath
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    peft: AdapterOptions | None = None


class Sections(BaseModel):
    """The shape of a config; the sections with a vocabulary of their own are checked by their rooms.

    Attributes:
        model: which model to start from.
        sequence: the tasks in order: names, paths of YAML files, or what such files say.
        method: its name and options.
        training: fields of TrainingArguments.
        evaluation: how much is scored, and how fast.
        data: how rows become tokens.
        seed: of everything that is drawn at random.
        output_dir: the run folder.
        overwrite: replace a run with another config that is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: ModelOptions
    sequence: list[str | dict[str, Any]] = Field(min_length=1)
    method: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)
    data: DataOptions = Field(default_factory=DataOptions)
    seed: Seed = 0
    output_dir: UserPath
    overwrite: bool = False


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration. ``training[k]`` holds the TrainingArguments fields of task k.

    ``after_task`` is that of ``model.peft``, or what the method needs; None where weights are trained.
    """

    model: ModelOptions
    tasks: tuple[Task, ...]
    method: Method
    training: tuple[dict[str, Any], ...]
    evaluation: EvaluationOptions
    data: DataOptions
    seed: int
    output_dir: Path
    overwrite: bool
    resolved: dict[str, Any]
    after_task: str | None = None


def load_config(path: str, overrides: Mapping[str, Any]) -> RunConfig:
    """Read ``path``, a file or the name of a shipped config, apply ``overrides`` and check the whole.

    Raises:
        ConfigError: the first thing that is wrong, by its dotted key; nothing has been written.
    """
    file = find_config(path, "CONFIG", "sequences")
    values = read_yaml(file)
    if _selects_another_method(values, overrides):
        values["method"] = {}  # the options there are the other method's
    return make_config(merged(values, overrides), task_folders=task_folders(file))


def make_config(values: Mapping[str, Any], task_folders: Sequence[Path] = ()) -> RunConfig:
    """Check a configuration given as a mapping. Raises ConfigError as :func:`load_config` does."""
    try:
        sections = Sections.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, "", Sections) from error
    method = make_method(sections.method)
    after_task = after_task_of(sections.model.peft, method)
    shared = read_training(sections.training)
    tasks = _tasks(sections, task_folders)
    per_task = tuple(
        {**shared, **read_training(task.config.training, f"sequence.{task.name}.training")} for task in tasks
    )
    with under("method"):
        training = tuple(method.training(per_task))
    return RunConfig(
        model=sections.model,
        tasks=tasks,
        method=method,
        training=training,
        evaluation=sections.evaluation,
        data=sections.data,
        seed=sections.seed,
        output_dir=Path(sections.output_dir),
        overwrite=sections.overwrite,
        resolved=_resolved(sections, method, shared, tasks),
        after_task=after_task,
    )


def after_task_of(options: AdapterOptions | None, method: Method) -> str | None:
    """What becomes of a task's adapter; None where weights are trained.

    Raises:
        ConfigError: the method does not train adapters, or not with these options, or nothing but adapters.
    """
    if options is None:
        if method.NEEDS_ADAPTERS:
            raise ConfigError("model.peft", f"is not set, and {method.name} trains adapters", "e.g. {r: 16}")
        return None
    if not method.ADAPTERS:
        able = ", ".join(sorted(name for name, each in known_methods().items() if each.ADAPTERS))
        raise ConfigError("method.name", f"{method.name} does not train adapters (model.peft)", able)
    after_task = options.after_task or method.ADAPTERS[0]
    if after_task not in method.ADAPTERS:
        problem = f"is {after_task}, which {method.name} does not work with"
        raise ConfigError("model.peft.after_task", problem, " or ".join(method.ADAPTERS))
    if after_task == "keep" and (more := options.more_than_products):
        problem = "is set, and a sum of adapters has no place for it"
        raise ConfigError(f"model.peft.{more}", problem, "another model.peft.after_task, or leave it out")
    with under("method"):
        method.check_adapters(options, after_task)
    return after_task


def _selects_another_method(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    ours, theirs = values.get("method"), overrides.get("method")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping) or "name" not in theirs:
        return False
    return theirs["name"] != ours.get("name", DEFAULT_METHOD)


def task_folders(config_file: Path) -> list[Path]:
    """Where ``sequence: [math]`` looks for math.yaml first: beside the sequences' folder."""
    return [config_file.resolve().parent.parent / "tasks"]


def _tasks(sections: Sections, folders: Sequence[Path]) -> tuple[Task, ...]:
    data_dir = Path(sections.data.dir)
    tasks = tuple(load_task(spec, search=folders, data_dir=data_dir) for spec in sections.sequence)
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("sequence", f"two tasks are named {name!r}", "a name of its own for each task")
    return tasks


def _resolved(
    sections: Sections, method: Method, training: Mapping[str, Any], tasks: Sequence[Task]
) -> dict[str, Any]:
    plain = sections.model_dump(mode="json", by_alias=True, exclude={"sequence", "method", "training"})
    return {
        "model": plain["model"],
        "sequence": [task.config.model_dump(mode="json", exclude_defaults=True) for task in tasks],
        "method": method.model_dump(mode="json", by_alias=True),
        "training": dict(training),
        **{key: plain[key] for key in ("evaluation", "data", "seed", "output_dir")},
    }
