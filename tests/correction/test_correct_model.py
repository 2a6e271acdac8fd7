"""The correction's command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from evaluation.small_models import SCORINGS, model, task, tokenizer
from transformers import AutoModelForCausalLM

from sfa_hf.commands.main import run_command
from sfa_hf.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    run_command("correct", arguments)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A teacher, a model that is a little beside it, a task file and its data."""
    own = model(initializer_range=0.1)
    own.save_pretrained(tmp_path / "teacher")
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    own.save_pretrained(tmp_path / "merged")
    for name in ("teacher", "merged"):
        tokenizer().save_pretrained(tmp_path / name)
    content = task(tmp_path, SCORINGS["choice"]).config.model_dump(mode="json", exclude_none=True)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "past.yaml").write_text(yaml.safe_dump({**content, "name": "past"}))
    return tmp_path


def arguments(folder: Path, **changes: str) -> list[str]:
    values = {
        "teacher": f"{folder}/teacher",
        "task": f"{folder}/small.yaml",
        "past": f"[{folder}/past.yaml]",
        "data.dir": str(folder),
        "learning_rate": "1e-2",
        "training.num_train_epochs": "5",
    } | changes
    options = [f"{key}={value}" for key, value in values.items() if value]
    return [f"{folder}/merged", f"{folder}/out", *options]


@pytest.mark.slow
def test_it_corrects_saves_and_reports(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments(saved))
    told = json.loads((saved / "out" / "correction.json").read_text())
    for name in ("small", "past"):
        assert told["after"][name]["distance"] < 0.9 * told["before"][name]["distance"]
    merged, out = (AutoModelForCausalLM.from_pretrained(saved / each) for each in ("merged", "out"))
    changed = {
        name for name, each in merged.state_dict().items() if not torch.equal(each, out.state_dict()[name])
    }
    assert changed == set(told["parameters"]) == {"model.norm.weight", "model.layers.1.mlp.down_proj.weight"}
    assert "15 steps on model.layers.1.mlp.down_proj.weight, model.norm.weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"teacher": ""}, "teacher: is missing"),
        ({"teacher": "no/where/here"}, "teacher: there is no folder"),
        ({"parameters": "lm_tail"}, "parameters: 'lm_tail' matches no parameter"),
        ({"loss": "l3"}, "loss: unknown value 'l3'"),
        ({"training.lerning_rate": "1"}, "training.lerning_rate: is not a field"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(saved: Path, changes: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        main(arguments(saved, **changes))
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert not (saved / "out").exists()
