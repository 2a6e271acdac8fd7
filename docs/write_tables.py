"""Write the tables of docs/configuration.md from the declarations of the options.

usage: python docs/write_tables.py

Each table stands between ``<!-- keys of NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import docstring_parser

from sfa_hf.commands.listing import Key, keys_of
from sfa_hf.commands.sections import data_section, evaluation_section, method_sections, training_section
from sfa_hf.config.declared import readable
from sfa_hf.methods import known_methods
from sfa_hf.sequence.config import ModelOptions
from sfa_hf.tasks.config import DataSource, Scoring, TaskConfig

PAGE = Path(__file__).parent / "configuration.md"
HEADER = ("key", "value", "default", "meaning")
_OF_THE_MACHINE = {"training.dataloader_pin_memory", "training.disable_tqdm", "training.use_cpu"}
"""Keys whose default is found out where a run starts."""


def markdown(keys: Sequence[Key]) -> str:
    """A table with a row for each key."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(_row, keys)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _row(key: Key) -> tuple[str, str, str, str]:
    value = ", ".join(filter(None, [*(f"`{word}`" for word in key.choices), key.kind]))
    default = "required" if key.default is None else f"`{key.default}`"
    return key.name, value, "by the machine" if key.name in _OF_THE_MACHINE else default, key.help


def methods() -> str:
    """A part for each method, the default's first."""
    return "\n\n".join(
        f"### {section.title}\n\n{_about(section.title)}\n\n"
        f"{markdown(section.keys) if section.keys else 'It has no options.'}"
        for section in method_sections()[1:]
    )


def _about(title: str) -> str:
    parsed = docstring_parser.google.parse(known_methods()[title.partition("=")[2]].__doc__ or "")
    text = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    return "\n".join(readable(line) for line in text.splitlines())


def tables() -> dict[str, str]:
    """Every table by its name."""
    task = keys_of(TaskConfig, "sequence.TASK", leave_out=("train", "heldout", "scoring"))
    source = keys_of(DataSource, "sequence.TASK.train.N")
    return {
        "model": markdown(keys_of(ModelOptions, "model")),
        "methods": methods(),
        "evaluation": markdown(evaluation_section().keys),
        "data": markdown(data_section().keys),
        "tasks": markdown([*task, *source, *keys_of(Scoring, "sequence.TASK.scoring")]),
        "training": markdown(training_section().keys),
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
