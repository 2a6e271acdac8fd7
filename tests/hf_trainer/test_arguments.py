from __future__ import annotations

from pathlib import Path

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.arguments import OWNED, read_training, training_arguments


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    found = read_training({"learning_rate": "1e-5", "max_steps": "7", "bf16": "false"})
    assert found == {"learning_rate": 1e-5, "max_steps": 7, "bf16": False}


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rte: .*did you mean 'learning_rate'"):
        read_training({"learning_rte": 1})


@pytest.mark.parametrize("name", sorted(OWNED))
def test_a_field_that_the_runner_sets_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"training.{name}: is not set here"):
        read_training({name: "x"})


def test_a_wrong_type_names_key_and_value() -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rate: got 'abc'"):
        read_training({"learning_rate": "abc"})


def test_what_transformers_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^training: ") as error:
        training_arguments({"lr_scheduler_type": "cosinus"}, tmp_path / "run", seed=0)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_users_values_win_over_the_defaults(tmp_path: Path) -> None:
    arguments = training_arguments({"logging_steps": 3, "use_cpu": True}, tmp_path, seed=5)
    assert (arguments.logging_steps, arguments.seed, arguments.report_to) == (3, 5, [])
