"""The keys of a run's config, section by section; compare, evaluate and others have some of them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from sfa_hf.commands.listing import Key, Section, first_line, keys_of
from sfa_hf.config.options import Choice
from sfa_hf.evaluation import EvaluationOptions
from sfa_hf.hf_trainer.arguments import DEFAULTS, OWNED, RANGES
from sfa_hf.methods import DEFAULT_METHOD, known_methods
from sfa_hf.sequence.config import Sections
from sfa_hf.tasks import DataOptions

_OF_A_SECTION = ("method", "training", "evaluation", "data")
_WORDS: dict[str, Sequence[str]] = {
    "lr_scheduler_type": [each.value for each in SchedulerType],
    "optim": [each.value for each in OptimizerNames],
    "logging_strategy": [each.value for each in IntervalStrategy],
    **{name: check.words for name, check in RANGES.items() if isinstance(check, Choice)},
}


def run_sections() -> list[Section]:
    """All of a run's config."""
    return [
        Section("the run", keys_of(Sections, leave_out=_OF_A_SECTION)),
        *method_sections(),
        evaluation_section(),
        data_section(),
        training_section(),
    ]


def method_sections() -> list[Section]:
    """The options of each method, the default's first."""
    names = sorted(known_methods(), key=lambda name: (name != DEFAULT_METHOD, name))
    default = Key("method.name", "", DEFAULT_METHOD, "which method.", tuple(names))
    sections = [Section("the method", (default,))]
    for name in names:
        about = first_line(known_methods()[name])
        own = keys_of(known_methods()[name], "method", leave_out=("name",))
        sections.append(Section(f"method.name={name}", own, about))
    return sections


def evaluation_section() -> Section:
    """How much is scored, and how fast."""
    return Section("evaluation", keys_of(EvaluationOptions, "evaluation"))


def data_section() -> Section:
    """How rows become tokens."""
    return Section("data", keys_of(DataOptions, "data"))


def training_section() -> Section:
    """The fields of TrainingArguments, but for those that the runner sets."""
    keys = keys_of(TrainingArguments, "training", leave_out=OWNED, defaults=DEFAULTS, choices=_WORDS)
    about = f"The fields of transformers' TrainingArguments. Not among them: {', '.join(OWNED)}."
    return Section("training", tuple(replace(key, help=_first_sentence(key.help)) for key in keys), about)


def _first_sentence(text: str) -> str:
    """What fits on a line or two; the rest stands in the documentation of transformers."""
    return text.partition(". ")[0].rstrip(".") + "."
