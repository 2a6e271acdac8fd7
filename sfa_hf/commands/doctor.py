"""What is installed, and what works on this machine: versions, devices, engines, the sandbox, room.

Every line that needs something says what to do. The exit code is 0.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sfa_hf.commands.command import WIDTH
from sfa_hf.commands.engine_trials import TRIALS, problem_with_engine
from sfa_hf.config.paths import cache_folder
from sfa_hf.config.shipped import Kind, folders, names
from sfa_hf.engines.deepspeed.build_locks import build_locks
from sfa_hf.evaluation.sandbox import Bubblewrap, Namespaces, available_box, problem_with

_NEEDED = ("torch", "transformers", "accelerate", "datasets", "evaluate", "safetensors", "pydantic", "numpy")
_EXTRAS = {
    "deepspeed": "deepspeed",
    "peft": "peft",
    "lm_eval": "lm-eval",
    "math_verify": "math",
    "tensorboard": "tensorboard",
}
"""Packages that some things need, and the extra of sfa_hf that installs each."""
_KINDS: tuple[Kind, ...] = ("sequences", "comparisons", "merges", "tasks")
_DEEPSPEED = "DeepSpeed ZeRO"
_LITTLE_ROOM = 5e9
_LITTLE_MEMORY = 2e9

Row = tuple[str, str, str]
"""What it is, what was found, what to do; "" where nothing has to be done."""


def run() -> None:
    """Print the tables."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    for title, rows in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("engines", _engines()),
        ("sandbox for generated programs", _sandbox()),
        ("configs", _configs()),
        ("room", _room()),
    ):
        console.print(_table(title, list(rows)))


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", min_width=24)
    table.add_column("found", overflow="fold")
    if any(to_do for _, _, to_do in rows):
        table.add_column("what to do", overflow="fold")
    for row in rows:
        table.add_row(*(Text(each) for each in row[: len(table.columns)]))
    table.add_row()
    return table


def _versions() -> Iterator[Row]:
    yield "sfa_hf", version("sfa_hf"), ""
    yield "Python", platform.python_version(), ""
    for package in _NEEDED:
        yield (
            package,
            _version(package) or "not installed",
            "" if _version(package) else f"pip install {package}",
        )
    for package, extra in _EXTRAS.items():
        found = _version(package)
        yield (
            package,
            found or "not installed",
            "" if found else f"pip install 'sfa_hf[{extra}]', where it is needed",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Row]:
    yield "CPU", f"{len(os.sched_getaffinity(0))} cores of {os.cpu_count()}, {platform.machine()}", ""
    if not torch.accelerator.is_available():
        yield "accelerator", "none: models train on the CPU", ""
        return
    kind = torch.accelerator.current_accelerator()
    for index in range(torch.accelerator.device_count()):
        told = str(kind)
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(index)
            told = f"{properties.name}, {_bytes(properties.total_memory)}"
        yield f"accelerator {index}", told, ""


def _engines() -> Iterator[Row]:
    for name in TRIALS:
        if name == _DEEPSPEED and _version("deepspeed") is None:
            yield name, "not installed", "pip install 'sfa_hf[deepspeed]'"
        elif (problem := problem_with_engine(name)) is None:
            yield name, "imports" if name == _DEEPSPEED else "works: tried on a tiny model", ""
        else:
            yield name, f"does not work: {problem}", "see docs/engines.md"
    for lock in build_locks():
        to_do = f"rm {lock}  (unless a build is going on)"
        yield "DeepSpeed build lock", f"{lock}: later launches wait for it for ever", to_do


def _sandbox() -> Iterator[Row]:
    best = available_box()
    for box in (Bubblewrap(), Namespaces()):
        problem = problem_with(box)
        used = ", used here" if best is not None and best.name == box.name else ""
        yield box.name, f"works{used}" if problem is None else f"does not work: {problem}", ""
    if best is None:
        to_do = "install bubblewrap or allow user namespaces; see docs/sandbox.md"
        yield "", "code tasks are refused", to_do


def _configs() -> Iterator[Row]:
    for kind in _KINDS:
        for folder in folders(kind):
            if folder.is_dir():
                yield kind, f"{len(names([folder]))} in {folder}", ""
            elif folder.is_absolute():
                yield kind, f"none in {folder}", "install sfa_hf again: its configs are missing"


def _room() -> Iterator[Row]:
    memory = psutil.virtual_memory()
    little = "close other programs" if memory.available < _LITTLE_MEMORY else ""
    yield "memory", f"{_bytes(memory.available)} free of {_bytes(memory.total)}", little
    places = {
        "current folder": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
        "cache": cache_folder(),
    }
    for name, folder in places.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        little = "free some, or start elsewhere" if free < _LITTLE_ROOM else ""
        yield f"disk: {name}", f"{_bytes(free)} free in {folder}", little


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
