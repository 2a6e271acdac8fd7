"""Compare two scored runs row by row: what changed, and is it more than chance?

usage: python scripts/compare_runs.py BEFORE AFTER [after=K] [output=FILE.json]
e.g.   python scripts/compare_runs.py runs/demo/sequential runs/demo/sfa
       python scripts/compare_runs.py runs/demo/sfa runs/demo/sfa after=[1,3]

BEFORE and AFTER are run folders, or folders that scripts/evaluate_model.py wrote. after=K compares two runs
after K tasks (the last by default), after=[J,K] the first after J and the second after K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sfa_hf.config.cli import run_main
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.evaluation import compare_folders, comparison_table, parse_stages
from sfa_hf.files.atomic import write_json
from sfa_hf.sequence import parse_overrides

USAGE = "scripts/compare_runs.py BEFORE AFTER [after=K] [output=FILE.json]"
KEYS = ("after", "output")


def main(arguments: Sequence[str]) -> None:
    folders = [Path(each) for each in arguments[:2] if "=" not in each and not each.startswith("-")]
    if len(folders) < 2:
        raise ConfigError("BEFORE AFTER", "two folders are needed", USAGE)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(str(folder), "is not a folder", "a run folder, or one of records")
    options = parse_overrides(arguments[2:])
    for key in options:
        if key not in KEYS:
            raise ConfigError(key, "is not a known key", nearest(key, KEYS))
    found = compare_folders(folders[0], folders[1], parse_stages(options.get("after")))
    print(comparison_table(found))
    if "output" in options:
        write_json(Path(options["output"]), [asdict(each) for each in found])


if __name__ == "__main__":
    run_main(main)
