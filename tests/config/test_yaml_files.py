"""The one reader of YAML: what a text means, and what is refused within a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sfa_hf.config.overrides import parse_overrides
from sfa_hf.config.yaml_files import read_yaml, yaml_text, yaml_value
from sfa_hf.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("+5", 5),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.0e-5", 1e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("010", "010"),
        ("-010", "-010"),
        ("007.5", "007.5"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("2024-01-02", "2024-01-02"),
        ("2023-99-99", "2023-99-99"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("[1, 1e-4, 010, no]", [1, 1e-4, "010", "no"]),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
    ],
)
def test_text_means_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = parse_overrides([f"key={text}"])["key"]
    assert (found, type(found)) == (value, type(value))


TEXTS = st.text() | st.from_regex(r"[\d.:eE+-]+") | st.sampled_from(["yes", "010", "1e5", "\x85 \u2028x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_back_by_either_version(value: Any) -> None:
    text = yaml_text({"value": value})
    assert yaml_value("value", text) == {"value": value} == yaml.safe_load(text)


def test_a_duplicate_key_names_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 0\ntraining: {max_steps: 4}\n# again\ntraining: {learning_rate: 1e-3}\n")
    with pytest.raises(ConfigError, match=r"the key training is there twice, in lines 2 and 4 \("):
        read_yaml(file)


def _bomb(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "is not a regular file"),
        (lambda file: file.symlink_to("/dev/full"), "is not a regular file"),
        (lambda file: file.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda file: file.symlink_to(file), "cannot be read"),
        (lambda file: file.mkdir(), "cannot be read"),
        (lambda file: None, "cannot be read (No such file"),
        (lambda file: file.write_text("a: " + "[" * 20_000 + "]" * 20_000), "more than 50 levels deep"),
        (lambda file: file.write_text("\n".join(" " * i + "a:" for i in range(1_000))), "50 levels deep"),
        (lambda file: file.write_text("a: 1\n#" + "x" * 2**20), "has more than 1048576 bytes"),
        (lambda file: file.write_text("".join(f"k{i}: {i}\n" for i in range(70_000))), "more than 10000"),
        (_bomb, "holds more than 10000 values"),
        (lambda file: file.write_text("a: &a [*a]"), "*a is part of itself"),
        (lambda file: file.write_text("1: 2"), "the key 1 is not text"),
        (lambda file: file.write_text("[a]: 2"), "a list or a mapping is not text"),
        (lambda file: file.write_text("a: !!python/name:os.system x"), "could not determine a constructor"),
        (lambda file: file.write_text("a: !!timestamp 2024-01-02"), "could not determine a constructor"),
        (lambda file: file.write_text("a: " + "9" * 5_000), "is not a number"),
        (lambda file: file.write_text("a: 1\n---\nb: 2"), "another document"),
        (lambda file: file.write_text("a:\n\tb: 1"), "cannot start any token"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "is not UTF-8"),
        (lambda file: file.write_text("# nothing"), "holds no keys"),
    ],
)
@pytest.mark.timeout(60)  # it takes a second at most, and without its bounds for ever
def test_a_bad_file_is_one_line(make: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    make(file)
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert told in str(error.value)
    assert str(error.value).startswith(str(file))


def test_a_name_with_nul_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(Path("a\0b.yaml"))
