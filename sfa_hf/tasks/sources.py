"""Where rows come from: local files, dataset folders, the Hub, generators.

JSON and CSV are read here, row by row, and not by ``datasets.load_dataset``: its JSON reader turns strings
that look like dates into timestamps, its CSV reader turns ``007`` into 7 and ``None`` into a null, and a
prompt or target must say what the file says. Every cell of a CSV file is a string; an empty one is null.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from sfa_hf.errors import ConfigError, nearest
from sfa_hf.files.hub import from_hub
from sfa_hf.generated import GENERATORS, generate
from sfa_hf.tasks.config import DataSource
from sfa_hf.tasks.selection import holding
from sfa_hf.tasks.text_files import blocks, bounded_lines

Columns = dict[str, Any]
#: A row and its number in the source, from 1.
NumberedRow = tuple[int, Columns]

#: How JSON writes each half of a character beyond 16 bits; alone it is no text.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_source(source: DataSource, data_dir: Path, key: str) -> Iterator[NumberedRow]:
    """The rows that a source selects, in its order, with their numbers in the file.

    ``max_chars`` speaks of rendered rows and ``limit`` of what it leaves: both are the caller's.

    Args:
        source: what the task file says.
        data_dir: folder that local paths are relative to.
        key: dotted key of the source, for errors.

    Raises:
        ConfigError: the rows cannot be had; its text says why.
    """
    rows = _matching(enumerate(_open(source, data_dir, key), start=1), source, key)
    if source.only_if is not None:
        rows = holding(rows, source.only_if, key)
    if source.shuffle:
        everything = list(rows)
        random.Random(source.seed).shuffle(everything)  # noqa: S311 - a reproducible order, not a secret
        rows = iter(everything)
    return rows


def _open(source: DataSource, data_dir: Path, key: str) -> Iterable[Columns]:
    if source.is_generated:
        return _generated(source, key)
    path = data_dir / source.path
    reader = READERS.get(Path(path.name.removesuffix(".gz")).suffix)
    if reader is not None:
        return _file(path, reader, key)
    if path.is_dir():
        return _dataset(str(path), source, key)
    if not _HUB_ID.fullmatch(source.path):
        right = f"a {', '.join(READERS)} file, a dataset folder, or a Hub id"
        raise ConfigError(f"{key}.path", f"{path} is neither a data file nor a folder", right)
    return _dataset(source.path, source, key)


def _generated(source: DataSource, key: str) -> Iterable[Columns]:
    name = source.path.removeprefix("generated:")
    if name not in GENERATORS:
        raise ConfigError(f"{key}.path", f"there is no generator '{name}'", nearest(name, GENERATORS))
    if source.split not in ("train", "test") or source.rows is None:
        raise ConfigError(f"{key}.split", f"is {source.split!r}", "generated rows have splits train and test")
    return generate(name, source.split, source.rows, source.seed)


def _matching(rows: Iterable[NumberedRow], source: DataSource, key: str) -> Iterator[NumberedRow]:
    wanted = {column: value if isinstance(value, list) else [value] for column, value in source.where.items()}
    for number, row in rows:
        for column in wanted:
            if column not in row:
                raise ConfigError(
                    f"{key}.where.{column}", f"row {number} has no such column", nearest(column, row)
                )
        if all(row[column] in values for column, values in wanted.items()):
            yield number, row


# ---------------------------------------------------------------------------------------------- local files


def _json(path: Path) -> Iterator[Columns]:
    with _text(path) as lines:
        text = "".join(lines)
    try:
        rows = json.loads(text)
    except RecursionError as err:
        raise ValueError("is nested too deep") from err
    if not isinstance(rows, list):
        raise TypeError(f"holds one {type(rows).__name__}, not a list of objects")
    for number, row in enumerate(rows, start=1):
        yield _object(row, f"item {number}", text)


def _json_lines(path: Path) -> Iterator[Columns]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as err:
                raise ValueError(f"line {number} is not JSON: {err.msg}") from err
            except RecursionError as err:
                raise ValueError(f"line {number} is nested too deep") from err
            except ValueError as err:  # a number of more digits than Python reads
                raise ValueError(f"line {number}: {err}") from err
            yield _object(row, f"line {number}", line)


def _csv(path: Path) -> Iterator[Columns]:
    with _text(path) as file:
        rows = csv.DictReader(file, strict=True)
        for row in rows:
            if None in row:
                raise ValueError(f"line {rows.line_num} has more cells than the header has names")
            yield {name: value or None for name, value in row.items()}


def _plain_text(path: Path) -> Iterator[Columns]:
    with _text(path) as file:
        yield from ({"text": block} for block in blocks(file))


def _parquet(path: Path) -> Iterator[Columns]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterator[Columns]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".txt": _plain_text,
    ".parquet": _parquet,
}


def _file(path: Path, reader: Callable[[Path], Iterator[Columns]], key: str) -> Iterator[Columns]:
    right = "one JSON list in .json, one JSON object a line in .jsonl, a header line in .csv; UTF-8"
    if not path.is_file():
        raise ConfigError(
            f"{key}.path", f"there is no file {path}", "an existing file; paths start at data.dir"
        )
    if path.stat().st_size == 0:
        raise ConfigError(f"{key}.path", f"{path} is empty", "a file with at least one row")
    try:
        yield from reader(path)
    except json.JSONDecodeError as err:
        raise ConfigError(
            f"{key}.path", f"{path} is not JSON: {err.msg} on line {err.lineno}", right
        ) from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{key}.path", f"{path} is not UTF-8 text: {err.reason}", right) from err
    except (ValueError, TypeError, csv.Error, zlib.error, EOFError, OSError, pyarrow.ArrowException) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"{key}.path", f"{path}: {err}", right) from err


@contextmanager
def _text(path: Path) -> Iterator[Iterator[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield bounded_lines(file, path.stat().st_size)


def _object(row: Any, where: str, text: str) -> Columns:
    if not isinstance(row, dict):
        raise TypeError(f"{where} is a {type(row).__name__}, not an object")
    if _HALF.search(text):  # or every row would be written out again
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as err:
            raise ValueError(f"{where} holds half a character, {err.object[err.start]!a}") from err
    return row


# ------------------------------------------------------------------------------- Hub ids and dataset folders


def _dataset(path: str, source: DataSource, key: str) -> Iterator[Columns]:
    with _quiet(), from_hub(f"{key}.path", f"dataset {path}"):
        loaded = datasets.load_dataset(
            path, source.name, split=source.split, revision=source.revision, trust_remote_code=False
        )
    if isinstance(loaded, datasets.DatasetDict):
        right = f"one of its splits: {', '.join(loaded)}"
        raise ConfigError(f"{key}.split", f"dataset {path} has several parts", right)
    yield from itertools.chain(loaded)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines beside the one error line."""
    bars, verbosity = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
