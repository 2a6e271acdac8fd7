"""A run's folder: whose it is, how far it got, and what it found."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sfa_hf.config.yaml_files import read_yaml, yaml_text
from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import (
    file_hash,
    folder_bytes,
    is_leftover,
    read_checked,
    read_json,
    write_atomic,
    write_checked,
)
from sfa_hf.files.owned import Names, check_owned, remove_owned
from sfa_hf.sequence.run_names import run_names

logger = logging.getLogger(__name__)

SCHEMA = 3
"""Of state.json. 2: with the hashes of rows and records; 3: with contamination."""
# Where a run lies, not what it is: a folder may be moved, and asked to be replaced.
LOCATION_KEYS = ("output_dir", "overwrite")
_SECTIONS = {
    *("model", "sequence", "method", "training", "evaluation", "data", "seed", "output_dir"),
}
_NO_CONFIG = "restore the file, or another output_dir"
BROKEN = "restore the file, or start again with overwrite=true"


@dataclass
class RunState:
    """Where a run stands; all that results.json is made of.

    Attributes:
        trained: tasks whose ``model/`` folder is whole.
        row: scores of the row that is being filled, a mapping a task (value, stderr, metric), in order.
        scores: rows of the score matrix so far; row 0 is before any training.
        stderr: their standard errors.
        metrics_used: primary metric of each task.
        merges: every merge of every finished task, in order.
        curve: scores during the training of every finished task, in order, where the config asks for them.
        cost: sums over the run so far (seconds), and peaks (bytes).
        engine: name of the training engine.
        world_size: processes of the latest launch.
        rows: SHA-256 of each source's rows, of each task, as the first launch found them.
        contamination: of each task's held-out rows by each task's training rows, as in results.json.
        records: SHA-256 of each file of records, by its path in the run's folder.
    """

    trained: int = 0
    row: list[dict[str, Any]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    stderr: list[list[float]] = field(default_factory=list)
    metrics_used: dict[str, str] = field(default_factory=dict)
    merges: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    world_size: int = 1
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    contamination: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)

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
        if not self.path.exists() or (self.path.is_dir() and not _belongings(self.path)):
            return None
        if not self._config_file.is_file():
            raise ConfigError("output_dir", f"{self.path} holds files that are not a run's", "a new folder")
        self._refuse_other_config()
        if not self._state_file.exists() and not self._previous_file.exists():
            return None
        try:
            return self._parse(self._state_file)
        except ConfigError as error:
            if not self._previous_file.exists():
                raise
            state = self._parse(self._previous_file)
            logger.warning("%s; going on from the state before it, %s", error, self._previous_file.name)
            return state

    def check_replaceable(self) -> None:
        """See that there is nothing, or nothing but an earlier run.

        Raises:
            ConfigError: by the first thing that is not a run's, or is a symbolic link.
        """
        if self.path.exists():
            check_owned(self.path, self._own_names(), "overwrite")

    def create(self, *, overwrite: bool) -> None:
        """Make the folder and write config.yaml; with ``overwrite``, remove an earlier run first.

        Raises:
            ConfigError: as :meth:`check_replaceable`; nothing has been removed.
        """
        if overwrite and self.path.exists():
            remove_owned(self.path, self._own_names(), "overwrite", self._config_file.name)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self._config_file, yaml_text(self.resolved))

    def write(self, state: RunState) -> None:
        """Replace state.json; the state before it is kept, in case a disk forgets."""
        with suppress(ConfigError):  # one that is damaged, or not there yet, does not replace a good one
            self._parse(self._state_file)
            write_atomic(self._previous_file, self._state_file.read_text(encoding="utf-8"))
        write_checked(self._state_file, {"schema": SCHEMA, **asdict(state)})

    def task_folder(self, index: int, task: str) -> Path:
        return self.path / f"{index}-{task}"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    def read_results(self) -> dict[str, Any]:
        """What results.json holds; nothing if it is not there or damaged."""
        with suppress(ConfigError, OSError):
            found = read_json(self.results_file, BROKEN)
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def has_report(self) -> bool:
        return (self.path / "report.html").is_file()

    def stored_bytes(self) -> int:
        """Bytes that the tasks' models, checkpoints and anchors take."""
        return sum(folder_bytes(folder) for folder in self.path.glob("[0-9]*-*/"))

    def records_folder(self, row: int) -> Path:
        """The per-row records of one row of the score matrix."""
        return self.path / "records" / f"after-{row}"

    def record_hashes(self, row: int, tasks: Iterable[str]) -> dict[str, str]:
        """SHA-256 of the records of these tasks, by path in this folder; of those that are there."""
        files = [self.records_folder(row) / f"{task}.jsonl" for task in tasks]
        return {file.relative_to(self.path).as_posix(): file_hash(file) for file in files if file.is_file()}

    @property
    def _config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def _state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def _previous_file(self) -> Path:
        return self.path / "state.previous.json"

    def _refuse_other_config(self) -> None:
        differing = differing_keys(read_yaml(self._config_file, _NO_CONFIG), self.resolved)
        if differing:
            raise ConfigError(
                "output_dir",
                f"{self.path} was made with another config: {', '.join(differing)} differ",
                "another output_dir, or overwrite=true",
            )

    def _parse(self, file: Path) -> RunState:
        values = read_checked(file, BROKEN)
        schema = values.pop("schema", None)
        if schema != SCHEMA or set(values) != set(asdict(RunState())):
            problem = f"was written by another version: its schema is {schema}, here it is {SCHEMA}"
            raise ConfigError(str(file), problem, "that version, another output_dir, or overwrite=true")
        return RunState(**values)

    def _own_names(self) -> Names:
        """The names of the run that is there; none where config.yaml is not as a run wrote it."""
        with suppress(ConfigError, OSError):
            config = read_yaml(self._config_file)
            if config.keys() == _SECTIONS and yaml_text(config) == self._config_file.read_text("utf-8"):
                return run_names(config)
        return {}


def _belongings(folder: Path) -> list[Path]:
    """What is in a folder, but for what a crash left of a file that had not yet its name."""
    return [path for path in folder.iterdir() if not is_leftover(path)]


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
