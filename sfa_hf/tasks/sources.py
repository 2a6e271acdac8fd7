"""Where rows come from: local files and folders, the Hub, generators; and which of them a source selects."""

from __future__ import annotations

import glob
import itertools
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath

import datasets
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from sfa_hf.config.shipped import shipped
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.files.hub import first_line, from_hub
from sfa_hf.generated import GENERATORS, generate
from sfa_hf.tasks.config import DataSource
from sfa_hf.tasks.formats import READ_ERRORS, READERS, Columns, DataFile, quiet
from sfa_hf.tasks.selection import PlacedRow, holding, holding_values
from sfa_hf.tasks.splits import chosen
from sfa_hf.tasks.text_files import bad_character

_Placed = tuple[str, Columns]
_Rows = Callable[[], Iterable[_Placed]]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SHIPPED = "shipped:"
_SHEETS = {".xlsx", ".xls", ".xlsm", ".ods", ".numbers"}
_RIGHT = "one list of objects in .json, one object a line in .jsonl, a header line in .csv and .tsv; UTF-8"
_KNOWN = f"a {', '.join(READERS)} file, packed or not, a folder of them, or a Hub id"


def read_source(source: DataSource, data_dir: Path, key: str) -> Iterator[PlacedRow]:
    """The rows that a source selects, in its order, each with its place.

    ``max_chars`` speaks of rendered rows and ``limit`` of what it leaves: both are the caller's.

    Args:
        source: what the task file says.
        data_dir: folder that local paths are relative to.
        key: dotted key of the source, for errors.

    Raises:
        ConfigError: the rows cannot be had; its text says why.
    """
    found = enumerate(chosen(_splits(source, data_dir, key), source.split, key, source.path))
    rows: Iterable[PlacedRow] = (PlacedRow(place, index, columns) for index, (place, columns) in found)
    rows = holding_values(map(partial(_checked, key=key), rows), source.where, key)
    if source.only_if is not None:
        rows = holding(rows, source.only_if, key)
    if source.shuffle:
        everything = list(rows)
        random.Random(source.seed).shuffle(everything)  # noqa: S311 - a reproducible order, not a secret
        rows = everything
    return iter(rows)


def _checked(row: PlacedRow, key: str) -> PlacedRow:
    if found := bad_character(row.columns):
        raise ConfigError(f"{key}.path", f"{row.place} holds {found}", "text that can be written as UTF-8")
    return row


def _splits(source: DataSource, data_dir: Path, key: str) -> Mapping[str, _Rows]:
    """The splits of a source by name; of a Hub dataset the one that is asked for."""
    if source.is_generated:
        return _generated(source, key)
    if source.path.startswith(_SHIPPED):
        _refuse(source, key, "a file", "name", "revision")
        path = shipped() / "tasks" / source.path.removeprefix(_SHIPPED)
        return {"train": _files([(path, source.path)], source, key)}
    path = data_dir / source.path
    if path.is_dir():
        _refuse(source, key, "a folder", "revision", "columns", "separator", "field")
        return _folder(path, source, key)
    if glob.has_magic(source.path) and not path.exists():
        _refuse(source, key, "local files", "name", "revision")
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - a Path takes no absolute pattern
        found = [Path(each) for each in names if Path(each).is_file()]
        if not found:
            raise ConfigError(f"{key}.path", f"no file is named like {path}", "the names of existing files")
        return {"train": _files([(each, _name(each, data_dir)) for each in found], source, key)}
    ending = PurePath(PurePath(source.path.lower()).name).suffix
    if path.exists() or DataFile(path, source.path).format is not None or ending in _SHEETS:
        _refuse(source, key, "a file", "name", "revision")
        return {"train": _files([(path, source.path)], source, key)}
    if not _HUB_ID.fullmatch(source.path):
        raise ConfigError(f"{key}.path", f"{path} is neither a data file nor a folder", _KNOWN)
    _refuse(source, key, "a Hub dataset", "columns", "separator", "field")
    return _hub(source.path, source, key)


def _refuse(source: DataSource, key: str, what: str, *fields: str) -> None:
    """Refuse keys that would do nothing."""
    for field in fields:
        if getattr(source, field) is not None:
            raise ConfigError(f"{key}.{field}", f"does nothing for {what}, {source.path}", f"no {field}")


def _generated(source: DataSource, key: str) -> Mapping[str, _Rows]:
    name, rows = source.path.removeprefix("generated:"), source.rows or 0
    if name not in GENERATORS:
        raise ConfigError(f"{key}.path", f"there is no generator '{name}'", nearest(name, GENERATORS))
    return {
        split: lambda split=split: _placed(source.path, generate(name, split, rows, source.seed))  # type: ignore[misc]
        for split in ("train", "test")
    }


def _placed(name: str, rows: Iterable[Columns]) -> Iterator[_Placed]:
    return ((f"{name} row {number}", row) for number, row in enumerate(rows, start=1))


# --------------------------------------------------------------------------------------------------- files


def _name(path: Path, data_dir: Path) -> str:
    return str(path.relative_to(data_dir)) if path.is_relative_to(data_dir) else str(path)


def _files(files: list[tuple[Path, str]], source: DataSource, key: str) -> _Rows:
    """The rows of files one after another, by their paths and by the names that errors give them."""
    return lambda: itertools.chain.from_iterable(_file(path, name, source, key) for path, name in files)


def _file(path: Path, name: str, source: DataSource, key: str) -> Iterator[_Placed]:
    columns = None if source.columns is None else tuple(source.columns)
    file = DataFile(path, name, columns, source.separator, source.field)
    if not path.is_file():
        right = "an existing file; paths start at data.dir"
        raise ConfigError(f"{key}.path", f"there is no file {path}", right)
    if path.stat().st_size == 0:
        raise ConfigError(f"{key}.path", f"{name} is empty", "a file with at least one row")
    with _told(f"{key}.path", name):
        _check_keys(file, source, key)
        yield from _placed(name, file.rows())


def _check_keys(file: DataFile, source: DataSource, key: str) -> None:
    """Refuse formats that are not read, and keys of other formats."""
    ending = PurePath(file.name.lower()).suffix
    if ending in _SHEETS:
        raise ConfigError(
            f"{key}.path", f"{file.name} is a spreadsheet", "each sheet saved as a .csv file, in UTF-8"
        )
    if file.format is None:
        raise ConfigError(f"{key}.path", f"{file.name} has the ending of no data file", _KNOWN)
    if file.format in (".parquet", ".arrow") and ending != file.format:
        raise ConfigError(f"{key}.path", f"{file.name} is packed twice", f"the {file.format} file as it is")
    if file.format not in (".csv", ".tsv"):
        _refuse(source, key, f"a {file.format} file", "columns", "separator")
    if file.format != ".json":
        _refuse(source, key, f"a {file.format} file", "field")


@contextmanager
def _told(key: str, name: str) -> Iterator[None]:
    """A block in which a library's error about a file becomes a line that names it."""
    try:
        yield
    except UnicodeDecodeError as err:
        raise ConfigError(key, f"{name} is not UTF-8 text: {err.reason}", _RIGHT) from err
    except READ_ERRORS as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(key, f"{name}: {first_line(err)}", _RIGHT) from err


# ------------------------------------------------------------------------------------------ folders, the Hub


def _folder(path: Path, source: DataSource, key: str) -> Mapping[str, _Rows]:
    """A folder that ``save_to_disk`` wrote, or one of data files: ``datasets`` tells their splits."""
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        _refuse(source, key, "a saved dataset", "name")
        with _told(f"{key}.path", source.path):
            loaded = datasets.load_from_disk(str(path))
        if isinstance(loaded, datasets.Dataset):
            loaded = datasets.DatasetDict({str(loaded.split or "train"): loaded})
        return {name: partial(_placed, source.path, rows) for name, rows in loaded.items()}
    splits = {
        str(split): [each for each in map(Path, paths) if DataFile(each, each.name).format]
        for split, paths in _data_files(path, source, key).items()
    }
    if not any(path.iterdir()):
        raise ConfigError(f"{key}.path", f"there is no file in {path}", "a folder with data files")
    if not any(splits.values()):
        return _hub(str(path), source, key)  # images and the like
    return {
        split: _files([(each, f"{source.path}/{_name(each, path)}") for each in found], source, key)
        for split, found in splits.items()
        if found
    }


def _data_files(path: Path, source: DataSource, key: str) -> Mapping[str, list[str]]:
    """The files of each split: as the folder's card says, else by their names."""
    card = path / "README.md"
    try:
        with quiet():
            if card.is_file() and MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data):
                return datasets.load_dataset_builder(str(path), source.name).config.data_files
            _refuse(source, key, "a folder whose README.md names no configurations", "name")
            return _by_names(path)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"{key}.path", f"{source.path}: {first_line(err)}", _KNOWN) from err


def _by_names(folder: Path) -> dict[str, list[str]]:
    """As ``datasets`` tells splits by names of files and folders, in any case: TRAIN.CSV is train's."""
    found: dict[Path, list[str]] = {}
    with tempfile.TemporaryDirectory() as spare:
        for each in sorted(folder.rglob("*")):
            if each.is_file() and DataFile(each, each.name).format is not None:
                name = Path(spare, str(each.relative_to(folder)).lower())
                name.parent.mkdir(parents=True, exist_ok=True)
                name.touch()
                found.setdefault(name, []).append(str(each))
        if not found:
            return {}
        splits = DataFilesDict.from_patterns(get_data_patterns(spare), base_path=spare)
    return {split: [each for name in names for each in found[Path(name)]] for split, names in splits.items()}


def _hub(path: str, source: DataSource, key: str) -> Mapping[str, _Rows]:
    """The rows of ``split``, under that name, with the types that the dataset's page shows."""
    with quiet(), from_hub(f"{key}.path", f"dataset {path}"):
        loaded = datasets.load_dataset(
            path, source.name, split=source.split, revision=source.revision, trust_remote_code=False
        )
    if isinstance(loaded, datasets.DatasetDict):
        return {name: partial(_placed, source.path, rows) for name, rows in loaded.items()}
    return {source.split or "train": partial(_placed, source.path, loaded)}
