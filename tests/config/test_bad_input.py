"""What a user gets for a mistake: one line on standard error, exit code 2, nothing written.

``pytest tests/test_bad_input.py -s`` prints the table of docs/configuration.md.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_sequence.py"
ROWS = [{"q": f"{a}+1=", "a": str(a + 1)} for a in range(8)]


def _task(train: str = "rows.jsonl", **change: Any) -> dict[str, Any]:
    source = [{"path": train}]
    task = {"name": "sums", "prompt": "{{ q }}", "target": "{{ a }}", "train": source, "heldout": source}
    return {**task, "scoring": {"kind": "generate", "max_new_tokens": 2}, **change}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data file and a config that is right but for the model, which is never reached."""
    monkeypatch.chdir(tmp_path)
    _rows("rows.jsonl", ROWS)
    Path("no-weights").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        Path("no-weights", name).write_text('{"model_type": "gpt_neox"}')
    _config()
    return tmp_path


def _rows(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _config(**change: Any) -> None:
    config = {"model": {"name_or_path": "no-weights"}, "sequence": [_task()], "output_dir": "run", **change}
    Path("run.yaml").write_text(yaml.safe_dump(config))


def _earlier_run(**change: Any) -> None:
    config = yaml.safe_load(Path("run.yaml").read_text())
    from sfa_hf.sequence import make_config
    from sfa_hf.sequence.run_folder import RunFolder, RunState

    folder = RunFolder(Path("run"), make_config({**config, **change}).resolved)
    folder.create(overwrite=False)
    folder.write(RunState())


def _torn_state() -> None:
    _earlier_run()
    state = Path("run/state.json")
    state.write_text(state.read_text()[:40])


CASES: dict[str, tuple[list[str], Callable[[], Any], str]] = {
    "no config": ([], lambda: Path("run.yaml").unlink(), "run.yaml: cannot be read"),
    "unknown key": (["metod.name=sfa"], lambda: None, "metod: is not a known key (did you mean 'method'?"),
    "beta above 1": (["method.beta=1.5"], lambda: None, "method.beta:"),
    "p of 0": (["method.p=0"], lambda: None, "method.p:"),
    "another method's option": (["method.name=sequential", "method.beta=0.5"], lambda: None, "method.beta:"),
    "unknown method": (["method.name=swa"], lambda: None, "method.name: 'swa' is not a method"),
    "misspelt training field": (["training.learning_rte=1"], lambda: None, "training.learning_rte:"),
    "not a number": (["training.learning_rate=fast"], lambda: None, "training.learning_rate: got 'fast'"),
    "scores every 0 steps": (["evaluation.every=0"], lambda: None, "evaluation.every: is 0"),
    "unknown task": (["sequence=[maths]"], lambda: None, "sequence: there is no task 'maths'"),
    "missing data file": ([], lambda: Path("rows.jsonl").unlink(), "there is no file rows.jsonl"),
    "empty data file": ([], lambda: Path("rows.jsonl").write_text(""), "rows.jsonl is empty"),
    "data that is not JSON": ([], lambda: Path("rows.jsonl").write_text("{q: 1}\n"), "line 1 is not JSON"),
    "a column that is not there": (
        [],
        lambda: _config(sequence=[_task(prompt="{{ question }}")]),
        "has no column 'question'",
    ),
    "null target": ([], lambda: _rows("rows.jsonl", [*ROWS, {"q": "9+1=", "a": None}]), "null in column 'a'"),
    "model folder without weights": ([], lambda: None, "no-weights has no weights"),
    "no such model": (
        ["model.name_or_path=./nowhere"],
        lambda: None,
        "model.name_or_path: there is no folder",
    ),
    "misspelt built-in model": (
        ["model.name_or_path=builtin:pytia"],
        lambda: None,
        "did you mean 'builtin:pythia'",
    ),
    "another config's folder": (
        ["seed=1"],
        _earlier_run,
        "output_dir: run was made with another config: seed (0 there, 1 here)",
    ),
    "a folder that is no run's": (
        ["output_dir=no-weights"],
        lambda: None,
        "holds files that are not a run's",
    ),
    "torn state.json": ([], _torn_state, "run/state.json: is not valid JSON"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_code_2_and_nothing_written(
    case: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    options, prepare, expected = CASES[case]
    prepare()
    before = _contents(place)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "run.yaml", *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    line = capsys.readouterr().err
    if request.config.getoption("capture") == "no":
        with capsys.disabled():
            print(f"| {case} | `{line.strip()}` |")
    assert stop.value.code == 2
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert any(each in line for each in expected.split("|"))
    assert _contents(place) == before


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
