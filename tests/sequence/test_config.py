from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.sequence import load_config, make_config, parse_overrides

CONFIGS = Path(__file__).parents[2] / "configs"
TASK: dict[str, Any] = {
    "name": "math",
    "prompt": "{{ question }}",
    "target": "{{ answer }}",
    "train": [{"path": "generated:math", "split": "train", "rows": 4}],
    "heldout": [{"path": "generated:math", "split": "test", "rows": 4}],
    "scoring": {"kind": "generate"},
}
CONFIG: dict[str, Any] = {
    "model": {"name_or_path": "builtin:pythia"},
    "sequence": [TASK],
    "output_dir": "runs/test",
}


@pytest.mark.parametrize("path", sorted((CONFIGS / "sequences").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_without_the_hub(path: Path) -> None:
    config = load_config(str(path), {})
    assert config.method.name == "sfa"
    assert len(config.tasks) >= 2


@pytest.mark.parametrize("path", sorted((CONFIGS / "sequences").glob("*.yaml")), ids=lambda path: path.stem)
def test_choosing_another_method_leaves_the_first_ones_options_behind(path: Path) -> None:
    assert load_config(str(path), parse_overrides(["method.name=sequential"])).method.name == "sequential"
    with pytest.raises(ConfigError, match=r"method\.beta"):
        load_config(str(path), parse_overrides(["method.name=sequential", "method.beta=0.5"]))


def test_the_resolved_config_is_a_config_of_the_same_run() -> None:
    config = make_config(CONFIG)
    again = make_config(config.resolved)
    assert again.resolved == config.resolved


def test_a_tasks_own_training_fields_go_on_top() -> None:
    task = {**TASK, "training": {"max_steps": 7}}
    config = make_config(
        {**CONFIG, "sequence": [TASK, {**task, "name": "b"}], "training": {"max_steps": "3"}}
    )
    assert [fields["max_steps"] for fields in config.training] == [3, 7]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"metod": {}}, "metod"),
        ({"method": {"name": "sfa", "bta": 0.5}}, "method.bta"),
        ({"method": {"name": "sfaa"}}, "method.name"),
        ({"method": {"beta": 1.5}}, "method.beta"),
        ({"method": {"beta": float("nan")}}, "method.beta"),
        ({"method": {"p": 0}}, "method.p"),
        ({"method": {"merge_every": 0}}, "method.merge_every"),
        ({"method": {"merge_every": 3, "p": 0.5}}, "method.merge_every"),
        ({"method": {"include": "("}}, "method.include"),
        ({"model": {}}, "model.name_or_path"),
        ({"model": {"name_or_path": "x", "dtype": "int8"}}, "model.dtype"),
        ({"training": {"learning_rte": 1}}, "training.learning_rte"),
        ({"training": {"seed": 1}}, "training.seed"),
        ({"sequence": []}, "sequence"),
        ({"sequence": [TASK, TASK]}, "sequence"),
        ({"sequence": [{**TASK, "training": {"lr": 1}}]}, "sequence.math.training.lr"),
        ({"sequence": ["maths"]}, "sequence"),
        ({"evaluation": {"limt": 5}}, "evaluation.limt"),
        ({"data": {"max_length": 0}}, "data.max_length"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_config({**CONFIG, **change}, task_folders=[CONFIGS / "tasks"])
    assert error.value.key == key
    assert "\n" not in str(error.value)
