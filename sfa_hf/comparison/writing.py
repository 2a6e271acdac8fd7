"""comparison.json: every figure of a comparison; and what is made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfa_hf.comparison.displacement import displacements
from sfa_hf.comparison.found import Found, FoundRun, find_runs
from sfa_hf.comparison.intervals import paired_difference, t_interval
from sfa_hf.comparison.measures import APART, TOGETHER, measures
from sfa_hf.comparison.plan import DEFAULT_REFERENCE
from sfa_hf.files.atomic import write_json
from sfa_hf.reports.comparison import write_comparison_report
from sfa_hf.sequence.fingerprints import Fingerprints

SCHEMA = 1
FILE = "comparison.json"

Figures = dict[str, dict[int, float]]


def write_comparison(
    output_dir: Path,
    resolved: Mapping[str, Any],
    rows: Fingerprints,
    labels: Sequence[str] = (),
    reference: str | None = None,
) -> None:
    """Write comparison.json, and the table, the plots and the page from it. One process calls it.

    Args:
        output_dir: the comparison's folder.
        resolved: resolved config of any of its runs.
        rows: fingerprints of its data.
        labels: of the methods, in the order of the tables; others that are found come after them.
        reference: label of the method that the others are compared with; None: sequential, where it is there.

    Raises:
        ConfigError: a file of a run is damaged.
    """
    found = find_runs(output_dir, resolved, rows)
    if found.runs:
        write_json(output_dir / FILE, comparison(found, labels, reference or DEFAULT_REFERENCE))
        write_comparison_report(output_dir)


def comparison(found: Found, labels: Sequence[str], reference: str) -> dict[str, Any]:
    """The content of comparison.json, as docs/comparing.md describes it.

    Args:
        found: at least one finished run.
        labels: of methods, in the order of the tables.
        reference: label of the method that the others are compared with, which need not be there.
    """
    there = {run.label for run in found.runs}
    by_label: dict[str, dict[int, FoundRun]] = {label: {} for label in labels if label in there}
    for run in sorted(found.runs, key=lambda run: (run.label, run.seed)):
        by_label.setdefault(run.label, {})[run.seed] = run
    figures = _all_figures(by_label)
    first = found.runs[0].results
    return {
        "schema": SCHEMA,
        "model": first["model"],
        "tasks": first["tasks"],
        "metrics_used": first["metrics_used"],
        "seeds": sorted({run.seed for run in found.runs}),
        "reference": reference if reference in by_label else None,
        "base": first["scores"][0],
        "methods": [
            _method(label, runs, figures[label], figures.get(reference, {}))
            for label, runs in by_label.items()
        ],
        # scored in training, one task after another: the references' steps are others
        "curves": [
            _curve(run)
            for run in found.runs
            if run.results.get("curve") and run.results["method"]["name"] not in (APART, TOGETHER)
        ],
        "unfinished": list(found.unfinished),
        "others": list(found.others),
    }


def _all_figures(by_label: Mapping[str, Mapping[int, FoundRun]]) -> dict[str, Figures]:
    """Each method's numbers, by name and seed."""
    single, joint = (_results_of(by_label, name) for name in (APART, TOGETHER))
    found: dict[str, Figures] = {}
    for label, runs in by_label.items():
        found[label] = {}
        for seed, run in runs.items():
            numbers = measures(run.results, single.get(seed), joint.get(seed))
            for name, value in numbers.items():
                found[label].setdefault(name, {})[seed] = value
    _add_displacements(by_label, found)
    return found


def _results_of(by_label: Mapping[str, Mapping[int, FoundRun]], method: str) -> dict[int, dict[str, Any]]:
    """Results by seed of the first method of this name."""
    named = [
        runs for runs in by_label.values() if next(iter(runs.values())).results["method"]["name"] == method
    ]
    return {seed: run.results for seed, run in named[0].items()} if named else {}


def _add_displacements(
    by_label: Mapping[str, Mapping[int, FoundRun]], figures: Mapping[str, Figures]
) -> None:
    """Mean over tasks k > 1 of ||theta_k - theta_{k-1}||_2, relative to sequential's of the same seed."""
    plain = {
        run.seed: _moved(run)
        for runs in by_label.values()
        for run in runs.values()
        if run.results["method"]["name"] == DEFAULT_REFERENCE
    }
    for label, runs in by_label.items():
        if next(iter(runs.values())).results["method"]["name"] in (APART, TOGETHER):
            continue  # their models do not follow one another
        moved = {seed: _moved(run) for seed, run in runs.items() if plain.get(seed)}
        relative = {seed: _relative(ours, plain[seed]) for seed, ours in moved.items()}
        known = {seed: value for seed, value in relative.items() if value is not None}
        if known:
            figures[label]["displacement"] = known


def _moved(run: FoundRun) -> list[float] | None:
    return displacements(run.folder, run.results["tasks"])


def _relative(ours: Sequence[float] | None, plain: Sequence[float] | None) -> float | None:
    if not ours or not plain or not all(plain):
        return None
    return sum(mine / theirs for mine, theirs in zip(ours, plain, strict=True)) / len(plain)


def _method(label: str, runs: Mapping[int, FoundRun], figures: Figures, reference: Figures) -> dict[str, Any]:
    difference = paired_difference(figures["average"], reference.get("average", {}))
    return {
        "label": label,
        "method": next(iter(runs.values())).results["method"],
        "seeds": sorted(runs),
        "figures": figures_of(figures),
        "difference": None if difference is None else asdict(difference),
    }


def figures_of(values: Figures) -> dict[str, Any]:
    """Means and intervals of numbers given by name and seed, as in comparison.json."""
    return {name: asdict(t_interval(by_seed)) for name, by_seed in values.items()}


def _curve(run: FoundRun) -> dict[str, Any]:
    results = run.results
    merges = [{key: merge[key] for key in ("task", "step", "of")} for merge in results["merges"]]
    return {
        "label": run.label,
        "seed": run.seed,
        "points": results["curve"],
        "merges": merges,
        "scores": results["scores"],
    }
