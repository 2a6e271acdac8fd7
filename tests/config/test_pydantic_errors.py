"""Pydantic's errors as one line, by the key that the user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    mode: Literal["keep", "reset"] = "keep"

    @model_validator(mode="after")
    def _no_half(self) -> Leaf:
        if self.beta == 0.125:
            raise ConfigError("beta", "is 0.125", "any other number")
        return self


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    leaf: Leaf | None = None
    leaves: list[str | Leaf] = []
    table: dict[str, list[int]] = {}
    either: list[str] | str | None = None
    anything: Mapping[str, Any] = {}


CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "name: is missing (it has no default)"),
    ({"nam": "x"}, "nam: is not a known key (did you mean 'name'? known: "),
    ({"name": 3}, "name: is 3 (must be a valid string)"),
    ({"name": "x", "leaf": {"beta": 1.5}}, "leaf.beta: is 1.5 (must be less than or equal to 1)"),
    (
        {"name": "x", "leaf": {"betta": 1}},
        "leaf.betta: is not a known key (did you mean 'beta'? known: beta, mode)",
    ),
    ({"name": "x", "leaf": {"mode": "drop"}}, "leaf.mode: is 'drop' (must be 'keep' or 'reset')"),
    ({"name": "x", "leaf": {"beta": 0.125}}, "leaf.beta: is 0.125 (any other number)"),
    ({"name": "x", "leaf": 3}, "leaf: is 3 ("),
    ({"name": "x", "leaves": ["a", {"beta": 2}]}, "leaves.1.beta: is 2 (must be less"),
    ({"name": "x", "leaves": [{"bata": 2}]}, "leaves.0.bata: is not a known key (did you mean 'beta'"),
    ({"name": "x", "leaves": [3]}, "leaves.0: is 3 (must be a valid string or "),
    ({"name": "x", "leaves": "abc"}, "leaves: is 'abc' (must be a valid list)"),
    ({"name": "x", "table": {"a": [1, "b"]}}, "table.a.1: is 'b' (must be a valid integer"),
    ({"name": "x", "either": 3}, "either: is 3 (must be a valid list or must be a valid string)"),
    ({"name": "x", "either": ["a", 3]}, "either.1: is 3 (must be a valid string)"),
    ({"name": "x", "anything": 1}, "anything: is 1 ("),
]


def error(values: dict[str, Any], prefix: str = "") -> ConfigError:
    with pytest.raises(ValidationError) as caught:
        Root.model_validate(values)
    return as_config_error(caught.value, prefix, Root)


@pytest.mark.parametrize(("values", "line"), CASES, ids=[line.split(" (")[0] for _, line in CASES])
def test_the_line_names_key_value_and_what_is_right(values: dict[str, Any], line: str) -> None:
    assert str(error(values)).startswith(line)
    assert str(error(values, "a.b")).startswith(f"a.b.{line}")


KEYS = st.sampled_from(["name", "leaf", "leaves", "beta", "mode", "x"])
SCALARS = st.none() | st.integers() | st.text(max_size=3)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner)))
def test_any_input_that_is_refused_is_one_line(values: Any) -> None:
    try:
        Root.model_validate(values)
    except ValidationError as caught:
        text = str(as_config_error(caught, "", Root))
        assert "\n" not in text
        assert ": " in text
