"""What a model made of each row, as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import file_hash, write_atomic


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, in row order; the file appears whole or not at all."""
    write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def check_record(run: Path, file: Path, hashes: Mapping[str, str]) -> None:
    """See that a file of records is the one that its run wrote.

    Args:
        run: its folder.
        file: in it.
        hashes: SHA-256 of each file of records, by its path in the run's folder, as in state.json.

    Raises:
        ConfigError: it is another one, or none that the run has finished.
    """
    wanted = hashes.get(file.relative_to(run).as_posix())
    if wanted is None:
        raise ConfigError(str(file), "is not in state.json", "a stage that the run has scored")
    if file_hash(file) != wanted:
        right = "restore it; or delete it, and the task's transitions are left out"
        raise ConfigError(str(file), "has another content than when it was written", right)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of one task, in row order."""
    # split by "\n" alone: JSON leaves other line separators, which splitlines() would split at, unescaped
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
