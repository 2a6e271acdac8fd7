"""The runs of a comparison that are on the disk, whichever launches made them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import read_json
from sfa_hf.sequence.fingerprints import Fingerprints
from sfa_hf.sequence.run_folder import BROKEN, RunFolder, RunState, differing_keys

logger = logging.getLogger(__name__)

_SEED = re.compile(r"seed-(\d+)")
# What makes no difference to the final scores, or is what is compared.
_MAY_DIFFER = re.compile(
    r"(method|seed)\b"
    r"|evaluation\.(every|every_limit|records|progress|code_workers|lm_eval)\b"
    r"|training\.(save_|logging_|report_to|disable_tqdm|dataloader_)"
)


@dataclass(frozen=True)
class FoundRun:
    """A finished run.

    Attributes:
        label: of its method.
        seed: of its config.
        folder: of the run.
        results: of its results.json, as in docs/run-folder.md.
    """

    label: str
    seed: int
    folder: Path
    results: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a comparison's folder holds.

    Attributes:
        runs: the finished ones, by label and seed.
        unfinished: "LABEL/seed-S" of the others.
        others: "LABEL/seed-S: ..." of runs with another config or other data than the comparison's, and how
            they differ.
    """

    runs: tuple[FoundRun, ...]
    unfinished: tuple[str, ...]
    others: tuple[str, ...]


def find_runs(output_dir: Path, resolved: Mapping[str, Any], rows: Fingerprints) -> Found:
    """Look for runs of this comparison.

    Args:
        output_dir: the comparison's folder.
        resolved: resolved config of any of its runs; those that differ in more than method and seed do not
            belong to it.
        rows: fingerprints of the comparison's data; runs from others do not belong to it.

    Raises:
        ConfigError: a file of a run is damaged.
    """
    runs, unfinished, others = [], [], []
    for label, seed, folder in _folders(output_dir):
        differing = [
            each for each in differing_keys(_config(folder), resolved) if not _MAY_DIFFER.match(each)
        ]
        name = f"{label}/{folder.name}"
        state = None if differing else RunFolder(folder, _config(folder)).read()
        if state is not None:
            differing = [f"rows of {source}" for source in _other_rows(state.rows, rows)]
        if differing:
            others.append(f"{name}: {', '.join(differing)}")
        elif state is None or (results := _results(folder, state)) is None:
            unfinished.append(name)
        else:
            runs.append(FoundRun(label, seed, folder, results))
    return Found(tuple(runs), tuple(unfinished), tuple(others))


def check_labels(output_dir: Path, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a label whose runs on the disk, of any seed, are another method's.

    Args:
        output_dir: the comparison's folder.
        methods: resolved options by label.

    Raises:
        ConfigError: such a run is there.
    """
    for label, _, folder in _folders(output_dir):
        if label in methods and (
            differing := differing_keys(_config(folder).get("method", {}), methods[label])
        ):
            problem = f"{folder} was made with other options of {label}: {', '.join(differing)} differ"
            raise ConfigError("output_dir", problem, "a label of its own, or another output_dir")


def run_folders(output_dir: Path, seed: int) -> list[Path]:
    """Folders of all runs of one seed, whether they are finished or not."""
    return [folder for _, of, folder in _folders(output_dir) if of == seed]


def _folders(output_dir: Path) -> Iterator[tuple[str, int, Path]]:
    found = [(each, _SEED.fullmatch(each.name)) for each in output_dir.glob("*/seed-*/")]
    named = [(folder.parent.name, int(match[1]), folder) for folder, match in found if match]
    yield from sorted(each for each in named if (each[2] / "config.yaml").is_file())


def _config(folder: Path) -> dict[str, Any]:
    return read_yaml(folder / "config.yaml", BROKEN)


def _other_rows(theirs: Fingerprints, ours: Fingerprints) -> list[str]:
    """Sources whose rows differ: "law.train.0"."""
    names = sorted({(task, source) for rows in (theirs, ours) for task in rows for source in rows[task]})
    there, here = ([rows.get(task, {}).get(name) for task, name in names] for rows in (theirs, ours))
    return [".".join(name) for name, old, new in zip(names, there, here, strict=True) if old != new]


def _results(folder: Path, state: RunState) -> dict[str, Any] | None:
    """The results of a finished run; None of one that is not."""
    path = folder / "results.json"
    if not path.is_file():
        return None
    right = "its own command again writes it anew"
    found = read_json(path, right)
    if not isinstance(found, dict) or not found.get("summary"):
        return None
    if (found.get("scores"), found.get("stderr")) != (state.scores, state.stderr):
        raise ConfigError(str(path), "has other scores than the run's state.json", right)
    return found
