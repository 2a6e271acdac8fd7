"""Tables and the page, made from results.json alone."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.reports import read_run, side_by_side, write_report


def _results(method: dict[str, Any], scores: list[list[float]], **changes: Any) -> dict[str, Any]:
    merge = {"task": "law", "step": 5, "of": 10, "beta": 0.5, "drift_before": 2.0, "drift_after": 1.0}
    return {
        "schema": 1,
        "model": "some/model & co",
        "method": method,
        "seed": 0,
        "world_size": 1,
        "engine": "plain",
        "tasks": ["math", "law"],
        "metrics_used": {"math": "exact_match", "law": "nll"},
        "scores": scores,
        "stderr": [[0.01, 0.1]] * len(scores),
        "summary": None,
        "merges": [{**merge, "seconds": 0.001, "bytes": 8}],
        "cost": {"train_seconds": 1.0},
        "versions": {"sfa_hf": "0"},
        **changes,
    }


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    scores = [[0.0, -3.0], [0.912, -2.5], [0.1, -1.0]]
    summary = {"average_accuracy": 0.5, "backward_transfer": -0.8, "forgetting": 0.8}
    shared = [{"task": "law", "trained_on": "math", "rows": 50, "exact": 3, "ngram": 4}]
    contents = {
        "plain": _results({"name": "sequential"}, scores, summary=summary, merges=[], contamination=shared),
        "sfa": _results({"name": "sfa", "beta": 0.5, "p": 0.25}, scores[:2]),
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    return [tmp_path / name for name in contents]


def test_matrices_stand_side_by_side(runs: list[Path]) -> None:
    lines = side_by_side([read_run(run) for run in runs]).splitlines()
    assert lines[0].split() == ["sequential", "sfa", "beta=0.5", "p=0.25"]
    after_math = next(line for line in lines if "after math" in line)
    assert after_math.count("91.2 ±1.0") == 2
    assert after_math.count("-2.500 ±0.100") == 2
    after_law = next(line for line in lines if "after law" in line)
    assert after_law.count("10.0 ±1.0") == 1
    assert "backward transfer: -0.800" in lines


class _Closed(HTMLParser):
    """Checks that every element that opens is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.sources += [str(value) for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
def test_the_page_is_whole_and_needs_nothing_else(which: list[int], runs: list[Path], tmp_path: Path) -> None:
    path = write_report(tmp_path / "out", [runs[index] for index in which])
    page = _Closed()
    text = path.read_text()
    page.feed(text)
    assert page.open == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "some/model &amp; co" in text
    assert "91.2 ±1.0" in text
    assert ("<td>50</td><td>3 (6.0 %)</td><td>4 (8.0 %)</td>" in text) == (which[0] == 0)
    assert (tmp_path / "out" / "plots" / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"results\.json"):
        read_run(tmp_path)
