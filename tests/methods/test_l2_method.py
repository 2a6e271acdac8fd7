"""Options of the method l2, as a config gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfa_hf import L2Callback, PullCallback
from sfa_hf.errors import ConfigError
from sfa_hf.methods import Stage, make_method

FIRST = Stage(index=0, tasks=(), base="base", folder=Path("0-math"))
SECOND = Stage(index=1, tasks=(), base="base", folder=Path("1-law"), past=(FIRST,))


def test_the_loss_form() -> None:
    method = make_method({"name": "l2", "lambda": 2e-2, "include": "mlp"})
    (callback,) = method.callbacks(SECOND)
    assert isinstance(callback, L2Callback)
    assert (callback.lambda_, callback.anchor, callback.include.pattern) == (0.02, "0-math/model", "mlp")
    assert method.callbacks(FIRST) == []


def test_the_decoupled_form() -> None:
    method = make_method({"name": "l2", "decoupled": True, "beta": 0.3, "first_task": True})
    (callback,) = method.callbacks(FIRST)
    assert isinstance(callback, PullCallback)
    assert (callback.beta, callback.p, callback.anchor) == (0.3, 0.25, "base")


@pytest.mark.parametrize("options", [{}, {"lambda": 1.5}, {"decoupled": True}, {"decoupled": True, "p": 1.0}])
def test_what_was_resolved_is_the_same_method_again(options: dict[str, Any]) -> None:
    method = make_method({"name": "l2", **options})
    resolved = method.model_dump(mode="json", by_alias=True)
    assert resolved.items() >= options.items()
    assert (resolved["lambda"] is None) == method.decoupled
    assert make_method(resolved) == method


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"beta": 0.5}, r"method\.beta: is 0\.5, and method\.decoupled is false"),
        ({"decoupled": True, "lambda": 1}, r"method\.lambda: is 1\.0, and method\.decoupled is true"),
        ({"lambda": float("nan")}, r"method\.lambda: nan is not the strength of a penalty"),
        ({"lambda": -1}, r"method\.lambda: -1\.0 is not the strength"),
        ({"lambda": "much"}, r"method\.lambda: is 'much'"),
        ({"decoupled": True, "beta": 2}, r"method\.beta: 2\.0 is not the weight of an average"),
        ({"lamda": 1}, r"method\.lamda: is not a known key \(did you mean 'lambda'\?"),
    ],
)
def test_options_that_cannot_be_right(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_method({"name": "l2", **options})
