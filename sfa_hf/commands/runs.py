"""Compare two scored runs row by row: what changed, and is it more than chance?

  sfa-hf runs runs/demo/sequential runs/demo/sfa
  sfa-hf runs runs/demo/sfa runs/demo/sfa after=[1,3]

BEFORE and AFTER are run folders, or folders that sfa-hf evaluate wrote.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfa_hf.commands.listing import Key, Section
from sfa_hf.config.paths import check_writable, expanded
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.evaluation import compare_folders, comparison_table, parse_stages
from sfa_hf.files.atomic import write_json

_KEYS = (
    Key(
        "after",
        "whole number or list of two",
        "null",
        "compare the runs after so many tasks, [J,K]: the first after J, the second after K; null: the last.",
    ),
    Key("output", "path", "null", "a JSON file for what is found."),
)


def sections() -> list[Section]:
    """What may stand behind the folders."""
    return [Section("keys", _KEYS)]


def run(before: str, after: str, overrides: dict[str, Any]) -> None:
    """Print the comparison, and write it where that is asked for."""
    folders = [Path(expanded(given, name)) for name, given in (("BEFORE", before), ("AFTER", after))]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(str(folder), "is not a folder", "a run folder, or one of records")
    known = [key.name for key in _KEYS]
    for key in overrides:
        if key not in known:
            raise ConfigError(key, "is not a known key", nearest(key, known))
    output = _output(overrides.get("output"))
    found = compare_folders(folders[0], folders[1], parse_stages(overrides.get("after")))
    print(comparison_table(found))
    if output is not None:
        write_json(output, [asdict(each) for each in found])


def _output(given: Any) -> Path | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise ConfigError("output", f"is {given!r}", "the path of a JSON file")
    output = Path(expanded(given, "output"))
    if output.is_dir():
        raise ConfigError("output", f"{output} is a folder", "the path of a JSON file")
    check_writable("output", output.parent)
    return output
