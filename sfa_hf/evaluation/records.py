"""What a model made of each row, as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sfa_hf.files.atomic import write_atomic


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, in row order; the file appears whole or not at all."""
    write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of one task, in row order."""
    # split by "\n" alone: JSON leaves other line separators, which splitlines() would split at, unescaped
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
