"""What ``methods:`` stands for: grids, labels, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.comparison.entries import expand
from sfa_hf.errors import ConfigError


def test_lists_form_a_grid_and_labels_name_what_was_given() -> None:
    specs: list[Any] = [
        "sequential",
        {"name": "sfa", "beta": [0.25, 0.5], "p": [1, 0.25]},
        {"name": "sfa", "beta": [0.1, 0.2], "p": 0.5, "label": "weak"},
        {"name": "l2", "decoupled": True, "beta": 0.5},
        {"name": "l2", "lambda": 1e-3},
    ]
    found = expand(specs, {})
    assert [entry.label for entry in found] == [
        "sequential",
        "sfa-beta0.25-p1",
        "sfa-beta0.25-p0.25",
        "sfa-beta0.5-p1",
        "sfa-beta0.5-p0.25",
        "weak-beta0.1",
        "weak-beta0.2",
        "l2-decoupled-beta0.5",
        "l2-lambda0.001",
    ]
    assert found[4].options == {"name": "sfa", "beta": 0.5, "p": 0.25}


def test_the_configs_own_method_gives_the_defaults_of_its_name() -> None:
    found = expand(["sfa", {"name": "sfa", "p": 1}, "sequential"], {"name": "sfa", "beta": 0.1})
    assert [entry.options for entry in found] == [
        {"name": "sfa", "beta": 0.1},
        {"name": "sfa", "beta": 0.1, "p": 1},
        {"name": "sequential"},
    ]


@given(
    betas=st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True),
    steps=st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True),
    patterns=st.lists(st.sampled_from(["a.b", "a/b", "a b", "a|b", "a\\b", "(a)b"]), min_size=1, unique=True),
)
def test_every_combination_has_a_label_of_its_own(
    betas: list[float], steps: list[int], patterns: list[str]
) -> None:
    found = expand([{"name": "sfa", "beta": betas, "merge_every": steps, "include": patterns}], {})
    labels = {entry.label for entry in found}
    assert len(labels) == len(found) == len(betas) * len(steps) * len(patterns)
    assert not any(set("/\\ ") & set(label) for label in labels)


@pytest.mark.parametrize(
    ("specs", "line"),
    [
        (["sequential", {"name": "sfa", "p": [1, 0]}], r"methods\.1\.p: 0(\.0)? is not a fraction"),
        ([{"name": "sfa", "betta": [0.5]}], r"methods\.0\.betta: .*did you mean 'beta'"),
        (["sfa", "swa"], r"methods\.1\.name: 'swa' is not a method"),
        ([{"beta": 0.5}], r"methods\.0\.name: is missing"),
        ([{"name": "sfa", "beta": []}], r"methods\.0\.beta: is an empty list"),
        ([{"name": "sfa", "label": "../x"}], r"methods\.0\.label: '\.\./x' cannot name a folder"),
        (["sfa", {"name": "sfa", "beta": [0.1, 0.5]}], r"methods\.1: is the method of methods\.0 again"),
        (
            [{"name": "sfa", "beta": 0.1, "label": "x"}, {"name": "sequential", "label": "x"}],
            r"methods\.1\.label: 'x' is a name of methods\.0 too",
        ),
    ],
)
def test_what_cannot_be_is_named_by_its_place(specs: list[Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        expand(specs, {})
