"""A comparison's configuration: a run's, with ``methods`` and ``seeds``; all of it checked before any run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfa_hf.comparison.entries import Entry, expand
from sfa_hf.comparison.found import check_labels
from sfa_hf.config.options import Seed
from sfa_hf.config.overrides import merged
from sfa_hf.config.paths import check_writable, expanded
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.config.shipped import find_config
from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.sequence import RunConfig, make_config
from sfa_hf.sequence.config import task_folders

DEFAULT_REFERENCE = "sequential"


class Keys(BaseModel):
    """What a comparison's config has beyond a run's.

    Attributes:
        methods: names, or mappings whose lists of values form a grid.
        seeds: of the runs of each method; the run's own where none are given.
        reference: label of the method that the others' averages are compared with; None: sequential, where
            it is among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    methods: list[str | dict[str, Any]] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    reference: str | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        label: of its method.
        seed: of its config.
        config: checked; its folder is OUTPUT_DIR/LABEL/seed-SEED.
    """

    label: str
    seed: int
    config: RunConfig

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, in the order in which they are run.

    Attributes:
        output_dir: that holds their folders and the report.
        runs: seed by seed, so that the table has a figure for each method early.
        reference: label of the method that the others are compared with; None: sequential, if it is there.
    """

    output_dir: Path
    runs: tuple[PlannedRun, ...]
    reference: str | None

    @property
    def labels(self) -> list[str]:
        """Of its methods, in the config's order."""
        return list(dict.fromkeys(run.label for run in self.runs))


def load_plan(path: str, overrides: Mapping[str, Any]) -> Plan:
    """Read the config ``path``, apply ``overrides`` and check every run.

    Raises:
        ConfigError: the first thing that is wrong, by its dotted key; nothing has been written.
    """
    values, folders = _values(find_config(path, "CONFIG", "comparisons", "sequences"), overrides)
    keys = _keys(values)
    for key in Keys.model_fields:
        values.pop(key, None)
    method = values.get("method") or {}
    entries = expand(keys.methods, method if isinstance(method, Mapping) else {})
    runs = tuple(_runs(values, folders, entries, keys.seeds))
    output_dir = runs[0].config.output_dir.parents[1]
    check_writable("output_dir", output_dir)
    if (output_dir / "config.yaml").exists():
        problem = f"{output_dir} is the folder of a single run"
        raise ConfigError("output_dir", problem, "a folder for the comparison, e.g. output_dir=runs/compare")
    methods = {entry.label: entry.method.model_dump(mode="json", by_alias=True) for entry in entries}
    check_labels(output_dir, methods)
    if keys.reference not in (None, *methods) and not (output_dir / str(keys.reference)).is_dir():
        problem = f"no method is labelled {keys.reference!r}"
        raise ConfigError("reference", problem, nearest(str(keys.reference), methods))
    return Plan(output_dir, runs, keys.reference)


def _values(file: Path, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """The config on top of the run's config that it names, and where tasks are looked for."""
    own = read_yaml(file)
    name = overrides.get("config", own.get("config"))
    below: dict[str, Any] = {}
    if name is not None:
        if not isinstance(name, str):
            raise ConfigError("config", f"is {name!r}", "the path of a run's config")
        file = _base(name, None if "config" in overrides else file)
        below = read_yaml(file)
    values = merged(merged(below, own), overrides)
    values.pop("config", None)
    return values, task_folders(file)


def _base(name: str, named_in: Path | None) -> Path:
    """The run's config that a comparison's file, or else the command line, names."""
    if named_in is None:
        return find_config(name, "config", "sequences")
    near = named_in.parent / expanded(name, "config")
    if near.is_file():
        return near
    return find_config(name, "config", "sequences", beside=[named_in.resolve().parent.parent / "sequences"])


def _keys(values: Mapping[str, Any]) -> Keys:
    if "methods" not in values:
        right = "names or mappings, e.g. methods=[sequential,sfa]"
        raise ConfigError("methods", "is missing", right)
    given = {key: values[key] for key in Keys.model_fields if key in values}
    try:
        keys = Keys.model_validate({"seeds": [values.get("seed", 0)], **given})
    except ValidationError as error:
        raise as_config_error(error, "", Keys) from error
    for seed in keys.seeds:
        if keys.seeds.count(seed) > 1:
            raise ConfigError("seeds", f"{seed} is there twice", "each once")
    return keys


def _runs(
    values: Mapping[str, Any], folders: list[Path], entries: list[Entry], seeds: list[int]
) -> Iterator[PlannedRun]:
    # its errors name keys of the whole config, and its tasks serve all runs: their rows are read once
    shared = make_config({**values, "method": entries[0].options}, folders)
    output_dir = shared.output_dir
    for seed in seeds:
        for entry in entries:
            folder = output_dir / entry.label / f"seed-{seed}"
            own = {"method": entry.options, "seed": seed, "output_dir": str(folder)}
            config = make_config({**values, **own}, folders)
            yield PlannedRun(entry.label, seed, replace(config, tasks=shared.tasks))
