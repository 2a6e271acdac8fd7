"""A run's folder: whose it is, how far it got, and what it found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sfa_hf.errors import ConfigError
from sfa_hf.files import read_json, sync_file, sync_folder, write_atomic, write_json

SCHEMA = 1
# Where a run lies, not what it is: a folder may be moved, and asked to be replaced.
LOCATION_KEYS = ("output_dir", "overwrite")
BROKEN = "restore the file, or start again with overwrite=true"


@dataclass
class RunState:
    """Where a run stands; all that results.json is made of.

    Attributes:
        trained: tasks whose ``model/`` folder is whole.
        scores: rows of the score matrix so far; row 0 is before any training.
        stderr: their standard errors.
        metrics_used: primary metric of each task.
        merges: every merge of every finished task, in order.
        cost: sums over the run so far (seconds), and peaks (bytes).
        engine: name of the training engine.
        world_size: processes of the latest launch.
    """

    trained: int = 0
    scores: list[list[float]] = field(default_factory=list)
    stderr: list[list[float]] = field(default_factory=list)
    metrics_used: dict[str, str] = field(default_factory=dict)
    merges: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    world_size: int = 1

    @property
    def evaluated(self) -> int:
        """Rows of the score matrix that are whole."""
        return len(self.scores)


class RunFolder:
    """The folder of one run, opened for a resolved config.

    Reading happens on every process, writing on the first; the runner puts the barriers.
    """

    def __init__(self, path: Path, resolved: Mapping[str, Any]) -> None:
        self.path = path
        self.resolved = dict(resolved)

    def read(self) -> RunState | None:
        """The state of an earlier launch of this very run; None where there was none.

        Raises:
            ConfigError: the folder holds another config's run, files that are no run's, or a damaged state.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return None
        if not self._config_file.is_file():
            raise ConfigError("output_dir", f"{self.path} holds files that are not a run's", "a new folder")
        self._refuse_other_config()
        if not self._state_file.is_file():
            return None
        return self._parse(read_json(self._state_file, BROKEN))

    def create(self, *, overwrite: bool) -> None:
        """Make the folder and write config.yaml; with ``overwrite``, remove an earlier run first."""
        if overwrite and self.path.exists():
            self._remove_run()
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self._config_file, yaml.safe_dump(self.resolved, sort_keys=False, allow_unicode=True))

    def write(self, state: RunState) -> None:
        """Replace state.json."""
        write_json(self._state_file, {"schema": SCHEMA, **asdict(state)})

    def task_folder(self, index: int, task: str) -> Path:
        return self.path / f"{index}-{task}"

    def model_folder(self, index: int, task: str) -> Path:
        """The task's final weights, once :meth:`adopt_model` has put them there."""
        return self.task_folder(index, task) / "model"

    def records_folder(self, row: int) -> Path:
        """The per-row records of one row of the score matrix."""
        return self.path / "records" / f"after-{row}"

    def adopt_model(self, written: Path, index: int, task: str) -> None:
        """Give a wholly written model its name; checkpoints of the task are no longer needed then."""
        final = self.model_folder(index, task)
        for file in written.iterdir():
            sync_file(file)
        if final.exists():
            shutil.rmtree(final)
        written.rename(final)
        sync_folder(final.parent)
        for checkpoint in final.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    @property
    def _config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def _state_file(self) -> Path:
        return self.path / "state.json"

    def _refuse_other_config(self) -> None:
        try:
            found = yaml.safe_load(self._config_file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(str(self._config_file), "is not YAML", BROKEN) from error
        differing = differing_keys(found if isinstance(found, dict) else {}, self.resolved)
        if differing:
            raise ConfigError(
                "output_dir",
                f"{self.path} was made with another config: {', '.join(differing)} differ",
                "another output_dir, or overwrite=true",
            )

    def _parse(self, values: Any) -> RunState:
        fields = (
            {key: value for key, value in values.items() if key != "schema"}
            if isinstance(values, dict)
            else {}
        )
        if not fields or values.get("schema") != SCHEMA or set(fields) != set(asdict(RunState())):
            raise ConfigError(str(self._state_file), f"is not a state of schema {SCHEMA}", BROKEN)
        return RunState(**fields)

    def _remove_run(self) -> None:
        if not self._config_file.is_file() and any(self.path.iterdir()):
            raise ConfigError(
                "overwrite", f"{self.path} holds files that are not a run's", "a new output_dir"
            )
        shutil.rmtree(self.path)


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys at which two resolved configs differ, each with both values."""
    differing = []
    for key in sorted(found.keys() | wanted.keys()):
        if not prefix and key in LOCATION_KEYS:
            continue
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differing += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            differing.append(f"{prefix}{key} ({_short(old)} there, {_short(new)} here)")
    return differing


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
