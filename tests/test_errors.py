from __future__ import annotations

import pytest

from sfa_hf.errors import ConfigError, known_as, nearest, under


def raised(key: str) -> ConfigError:
    return ConfigError(key, "is wrong", "right")


def test_a_key_gets_longer_under_another() -> None:
    with (
        pytest.raises(ConfigError, match=r"^method\.beta: is wrong \(right\)$"),
        under("method"),
        under("beta"),
    ):
        raise raised("")


def test_a_key_is_named_as_the_user_knows_it() -> None:
    with pytest.raises(ConfigError, match=r"^teacher: "), known_as("teacher"):
        raise raised("model.name_or_path")
    for key, expected in (("shuffle_moments", "shuffle"), ("beta", "beta")):
        with pytest.raises(ConfigError, match=f"^{expected}: "), known_as({"shuffle_moments": "shuffle"}):
            raise raised(key)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), under("method"):
        raise KeyError("beta")


def test_all_names_are_listed_unless_hundreds() -> None:
    known = [f"name_{i}" for i in range(200)]
    assert nearest("nam_7", known).count(",") == 199
    assert nearest("bta", ["beta", "p"]) == "did you mean 'beta'? known: beta, p"
    line = nearest("nam_7", known, "sfa-hf train --help")
    assert line.startswith("did you mean 'name_7'? nearest: name_7, ")
    assert line.endswith("; all of them: sfa-hf train --help")
    assert line.count("name_") == 6
    assert nearest("zzz", known, "elsewhere").count("name_") == 5
