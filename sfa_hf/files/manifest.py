"""Folders that say themselves whether they are whole: a manifest with the size and hash of every file.

It is written last. What has none was torn while it was written; what differs from it decayed later. Every
process of a launch takes its share of the hashing; the calls are collective.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import file_hash, read_checked, sync_file, sync_folder, write_checked

MANIFEST = "manifest.json"
_FACTS = "facts"
_FILES = "files"


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """See every file of ``folder`` on the disk and write the manifest, after which it is whole.

    Args:
        folder: wholly written; all processes see it.
        facts: JSON values to keep with it.
    """
    processes = PartialState()
    processes.wait_for_everyone()
    mine = files_in(folder)[processes.process_index :: processes.num_processes]
    for path in mine:
        sync_file(path)
    described = {path.relative_to(folder).as_posix(): _describe(path) for path in mine}
    everyones = gather_object([described])
    if processes.is_main_process:
        for inner in {path.parent for path in files_in(folder)}:
            sync_folder(inner)
        files = {name: entry for part in everyones for name, entry in part.items()}
        write_checked(folder / MANIFEST, {_FACTS: dict(facts), _FILES: dict(sorted(files.items()))})
        sync_folder(folder.parent)
    processes.wait_for_everyone()


def damage(folder: Path) -> str | None:
    """Say what is wrong with a sealed folder, the same on every process; None if it is whole."""
    processes = PartialState()
    try:
        files = _manifest(folder)[_FILES]
    except ConfigError as error:
        found: str | None = f"its {MANIFEST} {error.problem}"
    else:
        mine = list(files.items())[processes.process_index :: processes.num_processes]
        found = next((text for name, entry in mine if (text := _differs(folder / name, entry))), None)
    return next((text for text in gather_object([found]) if text), None)


def read_facts(folder: Path) -> dict[str, Any]:
    """What was kept with a sealed folder."""
    return _manifest(folder)[_FACTS]


def sealed_files(folder: Path) -> list[str]:
    """The files that a manifest lists, by their path in the folder.

    Raises:
        ConfigError: there is no manifest, or it is damaged.
    """
    return list(_manifest(folder)[_FILES])


def _manifest(folder: Path) -> dict[str, Any]:
    return read_checked(folder / MANIFEST, "a folder that was wholly written")


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, but for the manifest."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _describe(path: Path) -> list[Any]:
    return [path.stat().st_size, file_hash(path)]


def _differs(path: Path, entry: list[Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != entry[0]:
        return f"{path.name} has {size} bytes instead of {entry[0]}"
    return None if _describe(path) == entry else f"{path.name} has another content than when it was written"
