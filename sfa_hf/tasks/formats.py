"""A data file as rows: JSON, JSON Lines, CSV, TSV, text, Parquet, Arrow; packed or not.

Text formats are read here, row by row, and not by ``datasets``: its JSON reader turns text that looks like a
date into a timestamp and gives every row the columns of all of them, its CSV reader turns ``007`` into 7 and
``None`` into a null. A prompt or target must say what the file says.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import itertools
import json
import lzma
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any

import datasets
import pyarrow  # type: ignore[import-untyped]

from sfa_hf.tasks.text_files import blocks, bounded_lines

Columns = dict[str, Any]

#: What a damaged or wrongly named file makes the libraries raise.
READ_ERRORS = (
    *(ValueError, TypeError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError),
    *(csv.Error, gzip.zlib.error, lzma.LZMAError, pyarrow.ArrowException),  # type: ignore[attr-defined]
)


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        path: where its bytes are.
        name: as the task file or its folder names it; its endings tell the format.
        columns: names of a CSV file's cells, where its first line is a row; None: the first line names them.
        separator: between the cells of a CSV file; None: a comma in .csv, a tab in .tsv.
        field: key of the list in a JSON object; None: the only list of objects in it.
    """

    path: Path
    name: str
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    field: str | None = None

    @property
    def format(self) -> str | None:
        """Its ending in lower case, without how it is packed; None if no reader is known for it."""
        name = PurePath(self.name.lower())
        if name.suffix in PACKED:
            name = name.with_suffix("")
        if (
            name.suffix not in READERS
            and self.name.lower().endswith(".zip")
            and zipfile.is_zipfile(self.path)
        ):
            with zipfile.ZipFile(self.path) as archive:
                name = PurePath(_only_member(archive).lower())
        return name.suffix if name.suffix in READERS else None

    def rows(self) -> Iterator[Columns]:
        """Its rows, in order.

        Raises:
            one of READ_ERRORS: it cannot be read; the text names the line where there is one.
        """
        return READERS[str(self.format)](self)


# ------------------------------------------------------------------------------------------------------ JSON


def _json(file: DataFile) -> Iterator[Columns]:
    """One list of objects, or one object that holds it; or JSON Lines under this name."""
    with _text(file) as text:
        lines = list(text)
    try:
        return _objects_of_value(json.loads("".join(lines)), file.field)
    except json.JSONDecodeError as err:
        if err.msg == "Extra data" and file.field is None and "".join(lines[:1]).lstrip().startswith("{"):
            return _objects_of_lines(lines)
        raise ValueError(f"is not JSON: {err.msg} on line {err.lineno}") from err
    except RecursionError as err:
        raise ValueError("is nested too deep") from err


def _objects_of_value(value: Any, field: str | None) -> Iterator[Columns]:
    if isinstance(value, dict):
        value = _list_in(value, field)
    elif field is not None:
        raise ValueError(f"holds no object with the key {field!r}")
    if not isinstance(value, list):
        raise TypeError(f"holds one {type(value).__name__}, not a list of objects")
    return (_object(row, f"item {number}") for number, row in enumerate(value, start=1))


def _list_in(value: dict[str, Any], field: str | None) -> Any:
    if field is not None:
        if field not in value:
            raise ValueError(f"has no key {field!r}, but {', '.join(value)}")
        return value[field]
    lists = [
        key
        for key, each in value.items()
        if isinstance(each, list) and each and all(isinstance(item, dict) for item in each)
    ]
    if len(lists) > 1:
        raise ValueError(f"holds lists under {', '.join(lists)}: choose one by field, e.g. field: {lists[0]}")
    return value[lists[0]] if lists else value


def _json_lines(file: DataFile) -> Iterator[Columns]:
    with _text(file) as text:
        first = next(filter(str.strip, text), "")
    if first.lstrip().startswith("["):
        yield from _json(file)  # one list under this name
        return
    with _text(file) as text:
        yield from _objects_of_lines(text)


def _objects_of_lines(lines: Iterable[str]) -> Iterator[Columns]:
    for number, line in enumerate(lines, start=1):
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
        yield _object(row, f"line {number}")


def _object(row: Any, where: str) -> Columns:
    if not isinstance(row, dict):
        raise TypeError(f"{where} is a {type(row).__name__}, not an object")
    return row


# ------------------------------------------------------------------------------------------- CSV, text, Arrow

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}


def _cells(file: DataFile, usual: str) -> Iterator[Columns]:
    """Every cell is a string; an empty one is null."""
    separator = file.separator or usual
    csv.field_size_limit(sys.maxsize)  # of the process; the reader of lines has a bound
    with _text(file) as text:
        reader = csv.reader(text, delimiter=separator, strict=True)
        rows = (row for row in reader if row)
        first = next(rows, None)
        if first is None:
            return
        names = _names(first, file, separator)
        for row in rows if file.columns is None else itertools.chain([first], rows):
            if len(row) > len(names):
                of = "the header has names" if file.columns is None else "columns has names"
                raise ValueError(f"line {reader.line_num} has more cells than {of}")
            cells = itertools.chain(row, itertools.repeat(""))
            yield {name: cell or None for name, cell in zip(names, cells, strict=False)}


def _names(first: list[str], file: DataFile, separator: str) -> list[str]:
    names = first if file.columns is None else list(file.columns)
    if len(first) == 1 and file.separator is None:
        counts = {each: first[0].count(each) for each in _SEPARATORS if each != separator}
        likely = max(counts, key=lambda each: counts[each])
        if counts[likely]:
            raise ValueError(
                f"its first line is one cell, {first[0]!r:.60}: the separator seems to be "
                f"{_SEPARATORS[likely]} (separator: {json.dumps(likely)}), not {_SEPARATORS[separator]}"
            )
    if file.columns is not None and len(first) != len(names):
        raise ValueError(f"its first line has {len(first)} cells, and columns names {len(names)}")
    if file.columns is not None and first == names:
        raise ValueError("its first line is a header of the same names: leave columns out")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two of its columns are named {twice!r}: name all of them by columns")
    return names


def _plain_text(file: DataFile) -> Iterator[Columns]:
    with _text(file) as lines:
        yield from ({"text": block} for block in blocks(lines))


def _by_datasets(file: DataFile, builder: str) -> Iterator[Columns]:
    with quiet():
        path = glob.escape(str(file.path.absolute()))
        rows = datasets.load_dataset(
            builder, data_files=path, split="train", streaming=True, trust_remote_code=False
        )
        yield from rows


READERS: dict[str, Callable[[DataFile], Iterator[Columns]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": partial(_cells, usual=","),
    ".tsv": partial(_cells, usual="\t"),
    ".txt": _plain_text,
    ".parquet": partial(_by_datasets, builder="parquet"),
    ".arrow": partial(_by_datasets, builder="arrow"),
}


# ---------------------------------------------------------------------------------------------------- packed


@contextmanager
def _unzipped(path: Path) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(_only_member(archive)) as file:
        yield file


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [each.filename for each in archive.infolist() if not each.is_dir()]
    files = [each for each in names if not each.startswith("__MACOSX/")]
    if len(files) != 1:
        raise ValueError(f"holds {len(files)} files: unpack it, and name the folder or one of them")
    return files[0]


@contextmanager
def _zstandard(path: Path) -> Iterator[IO[bytes]]:
    with pyarrow.input_stream(str(path), compression="zstd") as file:
        yield io.BufferedReader(file)


PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _unzipped,
    ".zst": _zstandard,
}


@contextmanager
def _text(file: DataFile) -> Iterator[Iterator[str]]:
    opener = PACKED.get(PurePath(file.name.lower()).suffix, partial(open, mode="rb"))
    with ExitStack() as stack:
        stored = stack.enter_context(opener(file.path))
        text = stack.enter_context(io.TextIOWrapper(stored, encoding="utf-8-sig", newline=""))
        yield bounded_lines(text, file.path.stat().st_size)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log lines of ``datasets`` beside the one error line."""
    bars, verbosity = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
