"""A comparison.json of many methods, with the numbers that such runs might give."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from sfa_hf.comparison.intervals import paired_difference
from sfa_hf.comparison.writing import figures_of

GRID = [(beta, p) for beta in (0.1, 0.25, 0.5, 0.75) for p in (1.0, 0.5, 0.25)]
ALONE = {"rehearsal": (0.62, 0.9), "ewc": (0.3, 0.84), "joint": (0.9, 0.93), "single_task": (0.95, 0.97)}
STEPS = 400

Point = tuple[str, dict[str, Any], float, float]
"""Label, options, score on past tasks, score on the newest."""


def made_up(tasks: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The content of a comparison.json."""
    draw = random.Random(0)
    methods = [_method(point, seeds, tasks, draw) for point in _points()]
    plain = methods[0]["figures"]["average"]["values"]
    for method in methods:
        method["difference"] = vars(paired_difference(method["figures"]["average"]["values"], plain))
    return {
        "schema": 1,
        "model": "some/model & co",
        "tasks": list(tasks),
        "metrics_used": dict.fromkeys(tasks, "exact_match"),
        "seeds": list(seeds),
        "reference": "sequential",
        "base": [0.01] * len(tasks),
        "methods": methods,
        "curves": [
            _curve(label, seed, tasks, draw)
            for label in ("sequential", "sfa-beta0.25-p0.25")
            for seed in seeds
        ],
        "unfinished": ["ema/seed-2"],
        "others": [],
    }


def _points() -> Iterator[Point]:
    yield "sequential", {"name": "sequential"}, 0.05, 0.97
    for beta, p in GRID:
        kept = 1 - (1 - beta) ** (1 + 0.5 / p)
        options = {"name": "sfa", "beta": beta, "p": p, "merge_every": None, "rule": "average"}
        yield f"sfa-beta{beta:g}-p{p:g}", options, 0.95 * kept**0.7, 0.97 * (1 - kept**3)
    for weight in (0.01, 0.1, 1.0):
        yield (
            f"l2-lambda{weight:g}",
            {"name": "l2", "lambda": weight, "decoupled": False},
            0.2 + 0.2 * weight,
            0.7,
        )
    for name, (old, new) in ALONE.items():
        yield name, {"name": name}, old, new


def _method(point: Point, seeds: Sequence[int], tasks: Sequence[str], draw: random.Random) -> dict[str, Any]:
    label, options, old, new = point
    figures: dict[str, dict[int, float]] = {}
    for seed in seeds:
        final = [old + draw.uniform(-0.05, 0.05) for _ in tasks[:-1]] + [new + draw.uniform(-0.02, 0.02)]
        numbers = {f"final.{task}": score for task, score in zip(tasks, final, strict=True)}
        numbers |= {f"learned.{task}": 0.95 for task in tasks}
        past = sum(final[:-1]) / len(final[:-1]) if tasks[1:] else None
        numbers |= {"average": sum(final) / len(final), "new": final[-1], "learning_accuracy": 0.9}
        numbers |= {} if past is None else {"past": past, "forgetting": 0.95 - past, "retention": past}
        numbers |= {"train_seconds": draw.uniform(100, 130), "stored_bytes": 3e7, "displacement": 1.2 - old}
        for name, value in numbers.items():
            figures.setdefault(name, {})[seed] = value
    return {"label": label, "method": options, "seeds": list(seeds), "figures": figures_of(figures)}


def _curve(label: str, seed: int, tasks: Sequence[str], draw: random.Random) -> dict[str, Any]:
    points = [
        {
            "task": task,
            "step": step,
            "of": STEPS,
            "scores": {name: draw.uniform(0, 0.2) + 0.3 * (name == task) for name in tasks},
            "seconds": 1.0,
        }
        for task in tasks
        for step in range(25, STEPS + 1, 25)
    ]
    merges = [
        {"task": task, "step": step, "of": STEPS}
        for task in tasks[1:]
        for step in range(100, STEPS + 1, 100)
        if label != "sequential"
    ]
    return {"label": label, "seed": seed, "points": points, "merges": merges}
