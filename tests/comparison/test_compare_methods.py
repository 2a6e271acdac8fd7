"""Comparisons of real, very small runs: restarted, shared, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from sfa_hf.comparison import carry_out, launch, load_plan
from sfa_hf.comparison.found import find_runs
from sfa_hf.errors import ConfigError
from sfa_hf.sequence import RunConfig
from sfa_hf.sequence.fingerprints import fingerprints
from sfa_hf.tasks import task
from tests.sequence.small_run import small_base, small_data, small_values


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture
def config(base: str, tmp_path: Path) -> Path:
    values = small_values(base, small_data(tmp_path), tmp_path / "out", steps=2)
    values["sequence"] = values["sequence"][:2]
    values |= {"methods": ["sequential", {"name": "sfa", "p": 1}], "seeds": [0], "method": {"name": "sfa"}}
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _compare(config: Path, **overrides: Any) -> dict[str, Any]:
    carry_out(load_plan(str(config), overrides))
    return json.loads((config.parent / "out" / "comparison.json").read_text())


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class _Killed(BaseException):
    """Stands for a signal: nothing catches it on the way."""


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, run_claimed = config.parent / "out", launch.run_claimed

    def dies_in_second_run(run: RunConfig) -> Path:
        if run.method.name == "sfa":
            raise _Killed
        return run_claimed(run)

    with monkeypatch.context() as patch:
        patch.setattr(launch, "run_claimed", dies_in_second_run)
        with pytest.raises(_Killed):
            _compare(config)
    assert "sequential" in (out / "comparison.md").read_text()  # the table has what is there
    first = _times(out / "sequential" / "seed-0")
    found = _compare(config)
    after = _times(out / "sequential" / "seed-0")
    assert {path: after[path] for path in first if path.is_file()} == {
        path: time for path, time in first.items() if path.is_file()
    }
    assert [(method["label"], method["seeds"]) for method in found["methods"]] == [
        ("sequential", [0]),
        ("sfa-p1", [0]),
    ]
    plain, merged = found["methods"]
    assert merged["figures"]["displacement"]["mean"] == pytest.approx(0.5, abs=1e-3)  # beta = 0.5, once
    assert merged["difference"]["values"] == {
        "0": merged["figures"]["average"]["mean"] - plain["figures"]["average"]["mean"]
    }
    (linked,) = {
        (out / label / "seed-0" / "0-sums" / "model" / "model.safetensors").stat().st_ino
        for label in ("sequential", "sfa-p1")
    }  # the first task was trained once
    assert linked


def test_the_rows_of_a_task_are_read_once_for_all_runs(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_source, read = task.read_source, []

    def counted(source: Any, *arguments: Any) -> Any:
        read.append(source.path)
        return read_source(source, *arguments)

    monkeypatch.setattr(task, "read_source", counted)
    plan = load_plan(str(config), {"seeds": [0, 1, 2]})
    for run in plan.runs:
        for each in run.config.tasks:
            each.check()
    assert len(plan.runs) == 6
    sources = [
        source for each in plan.runs[0].config.tasks for source in (*each.config.train, *each.config.heldout)
    ]
    assert len(read) == len(sources) == 4


@pytest.mark.slow
def test_one_that_fails_leaves_the_others_their_results(config: Path) -> None:
    methods = [{"name": "rehearsal", "buffer_rows": 1000}, "sequential"]
    with pytest.raises(ConfigError, match=r"1 of 2 runs failed.*method\.buffer_rows: is 1000") as stop:
        _compare(config, methods=methods)
    assert stop.value.key == "rehearsal-buffer_rows1000, seed 0"
    out = config.parent / "out"
    found = json.loads((out / "comparison.json").read_text())
    assert [method["label"] for method in found["methods"]] == ["sequential"]
    assert "one seed" in (out / "comparison.md").read_text()
    with pytest.raises(ConfigError, match=r"output_dir: .*label of its own"):
        load_plan(str(config), {"methods": [{"name": "sfa", "label": "sequential"}]})
    other = load_plan(str(config), {"evaluation": {"limit": 3}})
    belonging = find_runs(out, other.runs[0].config.resolved, fingerprints(other.runs[0].config.tasks))
    assert (belonging.runs, len(belonging.others)) == ((), 1)
    assert belonging.others[0].startswith("sequential/seed-0: evaluation.limit (None there, 3 here)")


def test_what_all_runs_share_is_refused_once_and_nothing_is_written(config: Path) -> None:
    before = set(config.parent.rglob("*"))
    with pytest.raises(ConfigError, match=r"model\.name_or_path"):
        _compare(config, model={"name_or_path": "./nowhere"})
    assert set(config.parent.rglob("*")) == before


def test_a_run_that_another_launch_is_at_is_left_to_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(launch, "run_claimed", lambda run: done.append(run.method.name))
    place = config.parent / "out" / "sequential"
    place.mkdir(parents=True)
    with FileLock(place / ".seed-0.lock"):
        carry_out(load_plan(str(config), {}))
    assert done == ["sfa"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"methods": None}, "methods: is None"),
        ({"methods": []}, "methods: is"),
        ({"methods": ["sequential", {"name": "sfa", "p": [1, 2]}]}, r"methods\.1\.p: 2"),
        ({"seeds": [0, 0]}, "seeds: 0 is there twice"),
        ({"seeds": [-1]}, r"seeds\.0: -1 is not a seed"),
        ({"seeds": 3}, "seeds: is 3"),
        ({"reference": "sequentail"}, "reference: .*did you mean 'sequential'"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"trainig": {}}, "trainig: is not a known key"),
    ],
)
def test_a_bad_config_is_one_error(config: Path, overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load_plan(str(config), overrides)


def test_a_config_may_name_a_runs_config(config: Path, tmp_path: Path) -> None:
    own = {"config": "compare.yaml", "seeds": [3, 4], "training": {"max_steps": 7}, "reference": "sfa-p1"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    plan = load_plan(str(tmp_path / "own.yaml"), {"training": {"learning_rate": 1e-4}})
    assert [str(run) for run in plan.runs] == [
        "sequential, seed 3",
        "sfa-p1, seed 3",
        "sequential, seed 4",
        "sfa-p1, seed 4",
    ]
    assert plan.runs[2].config.output_dir == tmp_path / "out" / "sequential" / "seed-4"
    fields = plan.runs[0].config.training[0]
    assert (fields["max_steps"], fields["learning_rate"]) == (7, 1e-4)
    assert plan.reference == "sfa-p1"
