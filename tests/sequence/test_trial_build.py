"""Training fields that cannot train: one line each, no folder, and the corrected command then runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.arguments import read_training
from sfa_hf.sequence import load_config, make_config, run_sequence
from sfa_hf.sequence.trial_build import check_training
from tests.sequence.small_run import small_base, small_data, small_values

ROOT = Path(__file__).parents[2]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": -1}, r"training\.learning_rate: -1\.0 is not a learning rate"),
    ({"learning_rate": float("inf")}, r"training\.learning_rate: is inf \(a finite number\)"),
    ({"weight_decay": float("nan")}, r"training\.weight_decay: is nan"),
    ({"per_device_train_batch_size": 0}, r"training\.per_device_train_batch_size: 0 is too few"),
    ({"gradient_accumulation_steps": 0}, r"training\.gradient_accumulation_steps: 0 is too few"),
    ({"adam_beta1": 2}, r"training\.adam_beta1: 2\.0: Invalid beta parameter"),
    ({"report_to": "nonsense"}, r"training\.report_to: 'nonsense': .*tensorboard"),
    ({"optim_args": "x"}, r"training\.optim_args: 'x': "),
    ({"optim": "nope"}, r"training\.optim: 'nope': .*adamw_torch"),
    ({"save_strategy": "best"}, r"training\.save_strategy: unknown value 'best' \(known: epoch, no, steps\)"),
    ({"max_steps": 0}, r"training\.max_steps: 0 is not a number of steps"),
    ({"num_train_epochs": -1}, r"training\.num_train_epochs: -1\.0 are no epochs"),
    ({"save_steps": 0}, r"training\.save_steps: 0\.0 is not a number of steps"),
    ({"warmup_steps": -1}, r"training\.warmup_steps: -1\.0: "),
    ({"lr_scheduler_type": "cosinus"}, r"training\.lr_scheduler_type: 'cosinus': "),
    ({"lr_scheduler_kwargs": {"a": 1}}, r"training\.lr_scheduler_kwargs: .*unexpected keyword argument 'a'"),
    ({"dataloader_num_workers": -1}, r"training\.dataloader_num_workers: -1: "),
    ({"log_level": "loud"}, r"training\.log_level: 'loud': "),
    ({"deepspeed": "no-such.json"}, r"training\.deepspeed: 'no-such.json': "),
    (
        {"learning_rte": 1},
        r"training\.learning_rte: .*did you mean 'learning_rate'\? nearest: .*sfa-hf train --help",
    ),
]


def refused(fields: dict[str, Any], folder: Path) -> ConfigError:
    try:
        values = read_training({"use_cpu": True, **fields})
        check_training(values, {name: f"training.{name}" for name in values}, folder, seed=0)
    except ConfigError as error:
        return error
    raise AssertionError(f"{fields} pass")


@pytest.mark.parametrize(("fields", "line"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_one_line_by_the_key_that_was_given(fields: dict[str, Any], line: str, tmp_path: Path) -> None:
    error = refused(fields, tmp_path / "run")
    assert "\n" not in str(error)
    assert re.match(line, str(error)), str(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_steps": -1, "num_train_epochs": 0.5},
        {"optim": "sgd", "lr_scheduler_type": "cosine", "warmup_steps": 3},
        {"optim": "adafactor", "save_steps": 0.1, "save_strategy": "epoch"},
        {"learning_rate": 0, "max_grad_norm": 0, "report_to": ["tensorboard"]},
        {"deepspeed": {"zero_optimization": {"stage": 0}, "train_micro_batch_size_per_gpu": "auto"}},
    ],
    ids=str,
)
def test_what_can_train_passes(fields: dict[str, Any], tmp_path: Path) -> None:
    values = read_training({"use_cpu": True, **fields})
    check_training(values, {}, tmp_path / "run", seed=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    data = tmp_path / "data"
    data.mkdir()
    values = small_values(small_base(tmp_path / "models"), small_data(data), tmp_path / "run", steps=1)
    return {**values, "sequence": values["sequence"][:1]}


def test_a_tasks_own_field_is_named_as_its_own(values: dict[str, Any]) -> None:
    values["sequence"] = [{**values["sequence"][0], "training": {"adam_beta1": 2}}]
    with pytest.raises(ConfigError, match=r"^sequence\.sums\.training\.adam_beta1: 2\.0: Invalid"):
        run_sequence(make_config(values))
    assert not Path(values["output_dir"]).exists()


def test_a_seed_that_numpy_does_not_take(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^seed: 4294967296 is not a seed"):
        make_config({**values, "seed": 2**32})


@pytest.mark.slow
def test_the_script_refuses_and_the_corrected_command_runs(values: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(values))
    command = [sys.executable, "scripts/train_sequence.py", str(config), "training.adam_beta1=2"]
    wrong = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: training.adam_beta1: 2.0: Invalid beta parameter")
    assert wrong.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
    run_sequence(load_config(str(config), {}))
    assert (tmp_path / "run" / "results.json").is_file()
