"""Write the tables of docs/configuration.md from the declarations of the options.

usage: python docs/write_tables.py

Each table stands between ``<!-- keys of NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from pathlib import Path

import docstring_parser
from transformers import TrainingArguments

from sfa_hf.config.declared import readable
from sfa_hf.config.options import Choice
from sfa_hf.config.tables import Row, markdown, rows
from sfa_hf.evaluation import EvaluationOptions
from sfa_hf.hf_trainer.arguments import DEFAULTS, OWNED, RANGES
from sfa_hf.methods import DEFAULT_METHOD, known_methods
from sfa_hf.sequence.config import ModelOptions
from sfa_hf.tasks import DataOptions
from sfa_hf.tasks.config import DataSource, Scoring, TaskConfig

PAGE = Path(__file__).parent / "configuration.md"
_OF_THE_MACHINE = {"dataloader_pin_memory", "disable_tqdm", "use_cpu"}
"""Keys whose default is found out where a run starts."""


def methods() -> str:
    """A part for each method, the default's first."""
    names = sorted(known_methods(), key=lambda name: (name != DEFAULT_METHOD, name))
    return "\n\n".join(filter(None, map(_method, names)))


def _method(name: str) -> str:
    method = known_methods()[name]
    table = rows(method, "method", without=("name",))
    parsed = docstring_parser.google.parse(method.__doc__ or "")
    text = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    about = "\n".join(readable(line) for line in text.splitlines())
    return f"### method.name={name}\n\n{about}\n\n{markdown(table) if table else 'It has no options.'}"


def training() -> str:
    """The fields of TrainingArguments but those that the runner sets; of their help the first sentence."""
    found = rows(TrainingArguments, "training", without=OWNED, defaults=DEFAULTS)
    return markdown([_short(row) for row in found])


def _short(row: Row) -> Row:
    key, value, default, meaning = row
    name = key.removeprefix("training.")
    if name in _OF_THE_MACHINE:
        default = "by the machine"
    if isinstance(check := RANGES.get(name), Choice):
        value = ", ".join(f"`{word}`" for word in check.words)
    return key, value, default, f"{re.split(r'[.:;] ', meaning)[0].rstrip('.')}."


def tables() -> dict[str, str]:
    """Every table by its name."""
    task = rows(TaskConfig, "sequence.TASK", without=("train", "heldout", "scoring"))
    source = rows(DataSource, "sequence.TASK.train.N")
    return {
        "model": markdown(rows(ModelOptions, "model")),
        "methods": methods(),
        "evaluation": markdown(rows(EvaluationOptions, "evaluation")),
        "data": markdown(rows(DataOptions, "data")),
        "tasks": markdown([*task, *source, *rows(Scoring, "sequence.TASK.scoring")]),
        "training": training(),
    }


def with_tables(page: str) -> str:
    """The page with the tables as they are declared now."""
    for name, table in tables().items():
        pattern = re.compile(rf"(<!-- keys of {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page, found = pattern.subn(lambda marks, table=table: f"{marks[1]}\n{table}\n{marks[2]}", page)
        if found != 1:
            raise ValueError(f"{PAGE.name} has {found} places for the keys of {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
