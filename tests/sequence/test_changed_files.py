"""A run whose data or records have changed, or that another launch is at, is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sfa_hf.comparison.found import find_runs
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import compare_folders
from sfa_hf.files.locks import locked
from sfa_hf.sequence import make_config, run_sequence
from sfa_hf.sequence.borrowing import borrow_first_task
from sfa_hf.sequence.fingerprints import fingerprints
from tests.sequence.small_run import small_base, small_data, small_values


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def done(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and the run of two tasks made from them, at plain/seed-0."""
    place = small_data(tmp_path_factory.mktemp("done"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_sequence(make_config(_values(base)))
    return place


@pytest.fixture
def place(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    copied = shutil.copytree(done, tmp_path / "place")
    monkeypatch.chdir(copied)
    return copied


def _values(base: str) -> dict[str, Any]:
    values = small_values(base, Path(), Path("plain/seed-0"), steps=2)
    return {**values, "sequence": values["sequence"][:2], "method": {"name": "sequential"}}


def _files(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def _edit_rows(place: Path, task: str) -> None:
    file = place / f"{task}.jsonl"
    file.write_text(file.read_text().replace(f"{task} 39 is", f"{task} 39 was"))


def _edit_scores(place: Path, row: int) -> None:
    file = place / "plain" / "seed-0" / "records" / f"after-{row}" / "words.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    records[3]["score"] = 1 - records[3]["score"]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_rows_of_a_later_task_that_changed_are_refused_by_file(base: str, place: Path) -> None:
    _edit_rows(place, "words")
    before = _files(place)
    with pytest.raises(ConfigError, match=r"sequence\.words\.train\.0: words\.jsonl yields other rows"):
        run_sequence(make_config(_values(base)))
    assert _files(place) == before


@pytest.mark.parametrize("row", [0, 2])
def test_records_that_changed_are_refused(base: str, place: Path, row: int) -> None:
    _edit_scores(place, row)
    line = rf"after-{row}/words\.jsonl: has another content than when it was written"
    run = Path("plain/seed-0")
    with pytest.raises(ConfigError, match=line):
        run_sequence(make_config(_values(base)))
    with pytest.raises(ConfigError, match=line):
        compare_folders(run, run, (row, row))


def test_runs_that_are_at_different_stages_are_compared_only_if_asked(place: Path) -> None:
    run = Path("plain/seed-0")
    shorter = shutil.copytree(run, place / "shorter")
    shutil.rmtree(shorter / "records" / "after-2")
    with pytest.raises(
        ConfigError, match=r"after: is not given; .* after 2 tasks, .* after 1 \(after=\[2,1\]"
    ):
        compare_folders(run, shorter, (None, None))
    assert len(compare_folders(run, shorter, (2, 1))) == 2


def test_runs_of_other_data_do_not_belong_to_a_comparison_and_lend_nothing(base: str, place: Path) -> None:
    _edit_rows(place, "words")
    config = make_config({**_values(base), "output_dir": "sfa/seed-0", "method": {"name": "sfa"}})
    assert not borrow_first_task(config, Path("plain/seed-0"))
    found = find_runs(Path(), config.resolved, fingerprints(config.tasks))
    assert (found.runs, found.unfinished) == ((), ())
    assert found.others == ("plain/seed-0: rows of words.train.0",)


def test_scores_changed_in_results_are_not_believed_by_a_comparison(base: str, place: Path) -> None:
    config = make_config(_values(base))
    assert len(find_runs(Path(), config.resolved, fingerprints(config.tasks)).runs) == 1
    file = place / "plain" / "seed-0" / "results.json"
    results = json.loads(file.read_text())
    results["scores"][2][0] += 0.5
    file.write_text(json.dumps(results))
    with pytest.raises(ConfigError, match=r"results\.json: has other scores than the run's state\.json"):
        find_runs(Path(), config.resolved, fingerprints(config.tasks))


def test_a_folder_that_another_launch_works_in_is_refused(base: str, place: Path) -> None:
    before = _files(place)
    with locked(Path("plain/seed-0")) as holder:
        assert holder is None
        with pytest.raises(
            ConfigError, match=r"output_dir: plain/seed-0 is in use by process \d+ on .* since "
        ):
            run_sequence(make_config(_values(base)))
    assert _files(place) == before
