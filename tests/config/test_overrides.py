from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.config.overrides import merged
from sfa_hf.errors import ConfigError
from sfa_hf.sequence import parse_overrides

KEYS = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True)
VALUES = st.one_of(
    st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.lists(st.integers())
)
TREES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3), lambda t: st.dictionaries(KEYS, t, max_size=3)
)


def test_dotted_keys_become_nested_yaml_values() -> None:
    found = parse_overrides(["method.beta=0.25", "sequence=[math, law]", "method.name=sfa", "a.b.c=null"])
    assert found == {
        "method": {"beta": 0.25, "name": "sfa"},
        "sequence": ["math", "law"],
        "a": {"b": {"c": None}},
    }


def test_a_value_may_hold_equals_signs() -> None:
    assert parse_overrides(["prompt=a=b"]) == {"prompt": "a=b"}


@given(st.lists(KEYS, min_size=1, max_size=4), VALUES)
def test_any_dotted_key_and_value_is_read_back(path: list[str], value: object) -> None:
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
    found = parse_overrides([f"{'.'.join(path)}={text}"])
    for key in path:
        found = found[key]
    assert found == yaml.safe_load(text)


@pytest.mark.parametrize("argument", ["beta", "=1", "a..b=1", ".a=1", "a={", "method.beta=[1"])
def test_what_is_not_an_option_is_named(argument: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides([argument])
    assert error.value.key == argument.partition("=")[0] or error.value.key == argument


def test_a_key_below_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="plain value"):
        parse_overrides(["method=sfa", "method.beta=0.5"])


@given(TREES, TREES)
def test_overrides_win_and_nothing_else_changes(base: dict, top: dict) -> None:
    result = merged(base, top)
    assert merged(result, top) == result
    for key, value in base.items():
        if key not in top:
            assert result[key] == value
    for key, value in top.items():
        if not isinstance(value, dict) or not isinstance(base.get(key), dict):
            assert result[key] == value
