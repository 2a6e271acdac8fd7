from __future__ import annotations

import time

import pytest

from sfa_hf.config.patterns import compiled
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.answers import extract


@pytest.mark.parametrize("method", ["found_in", "last_in", "removed_from"])
def test_a_pattern_that_takes_too_long_is_one_line(method: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match="takes more than 1 s on 'aaaa"):
        getattr(compiled("(a|aa)+$"), method)("a" * 60 + "b")
    assert time.process_time() - began < 3


def test_a_pattern_that_python_would_never_end_is_answered_or_refused() -> None:
    assert extract("a" * 40 + "b", "(a+)+$") is None


@pytest.mark.parametrize("pattern", ["(", "[", "a{2,1}", "(?P<a>x)(?P<a>y)", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_is_none_is_refused_before_it_is_used(pattern: str) -> None:
    with pytest.raises(ValueError, match="must be a regular expression"):
        compiled(pattern)


def test_the_last_match_counts_and_its_first_group() -> None:
    assert extract("= 1, = 2", r"= (\\d)".replace("\\\\", "\\")) == "2"
    assert extract("1 2", r"\d") == "2"
    assert extract("x", r"\d") is None
    assert compiled("[,$]").removed_from("$1,000") == "1000"
