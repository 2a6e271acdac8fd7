"""Rooms of the package import one way: docs/internals/layout.md names them from low to high."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sfa_hf"

LEVELS = (
    {"registry"},
    {"errors", "engines", "distributed"},
    {"files", "generated", "rules"},
    {"config", "shards", "models", "reports"},
    {"hf_trainer", "tasks", "linearised", "adapters"},
    {"anchor", "moments", "fisher", "evaluation"},
    {"averaging", "callbacks", "checkpoints", "correction"},
    {"integrations", "methods", "probing"},
    {"sequence"},
    {"comparison"},
    {"commands"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            below = [f"{node.module}.{name.name}" for name in node.names]
            found += below if node.module == "sfa_hf" else [node.module]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return [name for name in found if name.startswith("sfa_hf.")]


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.stem == "errors")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_from_rooms_below_it_or_beside_it(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    above = [name for name in imported(file) if LEVEL[room_of(name)] > LEVEL[own]]
    assert not above, f"{own} imports from rooms above it: {above}"


def test_rooms_of_one_level_do_not_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {room: set() for room in LEVEL}
    for file in FILES:
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        arrows[own] |= {room_of(name) for name in imported(file)} - {own}
    reached: dict[str, set[str]] = {}

    def below(room: str, path: tuple[str, ...]) -> set[str]:
        assert room not in path, f"a circle: {' -> '.join((*path, room))}"
        if room not in reached:
            reached[room] = arrows[room].union(*(below(other, (*path, room)) for other in arrows[room]))
        return reached[room]

    for room in LEVEL:
        below(room, ())


def test_nothing_lies_loose_beside_the_rooms() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "errors"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders <= set(LEVEL)
