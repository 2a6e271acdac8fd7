"""A comparison's table, plots and page, from comparison.json alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from sfa_hf.reports.comparison import markdown, read_comparison, write_comparison_report
from sfa_hf.reports.comparison.families import families
from sfa_hf.reports.comparison.frontier import plot_frontier
from tests.reports.comparisons import made_up
from tests.reports.test_report import _Closed


def _write(folder: Path, tasks: list[str], seeds: list[int]) -> Path:
    (folder / "comparison.json").write_text(json.dumps(made_up(tasks, seeds)))
    return folder


@pytest.mark.parametrize(
    ("tasks", "seeds"), [(["math"], [0]), (["math", "law"], [4]), (["math", "law", "code"], [0, 1, 2])]
)
def test_the_page_is_whole_and_needs_nothing_else(tasks: list[str], seeds: list[int], tmp_path: Path) -> None:
    text = write_comparison_report(_write(tmp_path, tasks, seeds)).read_text()
    page = _Closed()
    page.feed(text)
    assert page.open == []
    assert len(page.sources) == (3 if tasks[1:] else 1)  # one task: no plane and no frontier, the curve alone
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "some/model &amp; co" in text
    assert ("one seed" in text) == (len(seeds) == 1)
    assert "ema/seed-2" in text


def test_cells_have_per_cent_and_the_intervals_half_width(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path, ["math", "law"], [0, 1, 2]))
    lines = markdown(comparison).splitlines()
    head = next(line for line in lines if line.startswith("| method"))
    row = next(line for line in lines if line.startswith("| rehearsal"))
    cells = dict(zip((c.strip() for c in head.split("|")), (c.strip() for c in row.split("|")), strict=True))
    average = next(m for m in comparison.methods if m.label == "rehearsal").figures["average"]
    assert average.high is not None
    assert cells["average"] == f"{100 * average.mean:.1f} ±{100 * (average.high - average.mean):.1f}"
    assert cells["average, from sequential's"].startswith("+")


def test_families_are_lines_along_their_strength(tmp_path: Path) -> None:
    comparison = read_comparison(_write(tmp_path, ["math", "law"], [0]))
    found = {family.title: family for family in families(comparison)}
    assert list(found) == ["sfa", "l2"]
    assert (found["sfa"].strength, found["sfa"].second) == ("beta", "p")
    assert [line.title for line in found["sfa"].lines("beta")] == ["sfa-p0.25", "sfa-p0.5", "sfa-p1"]
    betas = [method.options["beta"] for method in found["sfa"].lines("beta")[0].methods]
    assert betas == [0.1, 0.25, 0.5, 0.75]
    assert (found["l2"].strength, found["l2"].second) == ("lambda", "lambda")


def test_lines_say_what_sets_them_apart_from_others_of_their_method(tmp_path: Path) -> None:
    """Shuffle=0 is a number that one family has and the other has not."""
    found = made_up(["math", "law"], [0])
    like = next(method for method in found["methods"] if method["method"]["name"] == "sfa")
    for shuffle in (None, 0):
        for beta in (0.25, 0.5):
            options = {"name": "sfa_fisher", "beta": beta, "moments": "tasks", "shuffle": shuffle}
            found["methods"].append({**like, "label": f"{shuffle}-{beta}", "method": options})
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    found_families = families(read_comparison(tmp_path))
    titles = [family.title for family in found_families]
    assert titles == ["sfa", "l2", "sfa_fisher", "sfa_fisher shuffle=0"]
    lines = [line for family in found_families for line in family.lines(family.strength)]
    assert [line.title for line in lines[-2:]] == titles[-2:]  # their labels have nothing in common


def test_many_lines_are_drawn_in_rows(tmp_path: Path) -> None:
    found = made_up(["math", "law"], [0])
    grid = [method for method in found["methods"] if method["method"]["name"] == "sfa"]
    others = [
        {**each, "label": each["label"] + name, "method": {**each["method"], "name": name}}
        for each in grid
        for name in ("ema", "ties")
    ]
    heights = []
    for methods in (found["methods"], found["methods"] + others):
        (tmp_path / "comparison.json").write_text(json.dumps({**found, "methods": methods}))
        plot_frontier(read_comparison(tmp_path), tmp_path / "frontier.png")
        heights.append(imread(tmp_path / "frontier.png").shape[0])
    assert heights[1] > 3 * heights[0]  # a row for each p, and one for l2, which has none
