"""CMM through the runner: linearised training, the merge by optimizer state, the correction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import evaluate_task
from sfa_hf.linearised import load_linearised
from sfa_hf.methods import make_method
from sfa_hf.sequence import make_config, run_sequence
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

STEPS = 4


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cmm")
    (folder / "data").mkdir()
    made = small_values(small_base(folder / "models"), small_data(folder / "data"), folder / "run", STEPS)
    method = {"name": "cmm", "correction_learning_rate": 1e-3}
    return {**made, "method": method, "sequence": made["sequence"][:2], "evaluation": {"limit": 6}}


@pytest.fixture(scope="module")
def run(values: dict[str, Any]) -> Path:
    run_sequence(make_config(values))
    return Path(values["output_dir"])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def second(run: Path) -> Path:
    return run / f"1-{TASKS[1]}"


def test_it_scores_the_corrected_linearised_model(run: Path, values: dict[str, Any]) -> None:
    scores = json.loads((run / "results.json").read_text())["scores"]
    config = make_config(values)
    model, tokenizer = load_linearised(str(second(run) / "model"))
    task = config.tasks[0]
    again = evaluate_task(model, tokenizer, task, config.data, config.evaluation)
    assert scores[2][0] == again.value
    assert {each.name for each in second(run).iterdir()} == {"model", "_second_moments"}
    assert (
        json.loads((second(run) / "model" / "linearised.json").read_text())["theta_0"]
        == values["model"]["name_or_path"]
    )


@pytest.mark.slow
def test_the_correction_changes_a_few_parameters_of_the_merged_model(
    run: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    """The same run without a correction is the merged model."""
    other = {**values, "output_dir": str(tmp_path / "run"), "method": {"name": "cmm", "correction": "none"}}
    run_sequence(make_config(other))
    merged, corrected = weights(second(tmp_path / "run") / "model"), weights(second(run) / "model")
    changed = {name for name, each in merged.items() if not torch.equal(each, corrected[name])}
    last = "gpt_neox.layers.0.mlp.dense_4h_to_h"
    assert changed == {
        f"{name}.{part}" for name in (last, "gpt_neox.final_layer_norm") for part in ("weight", "bias")
    }
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["merges"]) == 1


@pytest.mark.slow
def test_a_run_that_was_killed_while_correcting_goes_on(
    run: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfa_hf.methods import cmm

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    training = {**values["training"], "save_strategy": "steps", "save_steps": 2}
    other = {**values, "output_dir": str(tmp_path / "run"), "training": training}
    real = cmm.correct
    monkeypatch.setattr(cmm, "correct", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sequence(make_config(other))
    monkeypatch.setattr(cmm, "correct", real)
    run_sequence(make_config(other))
    for name, each in weights(second(run) / "model").items():
        assert torch.equal(weights(second(tmp_path / "run") / "model")[name], each), name
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"alpha": 2}, "method.alpha"),
        ({"power": 7}, "method.power"),
        ({"correction": "next"}, "method.correction"),
        ({"correction_parameters": "("}, "method.correction_parameters"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_method({"name": "cmm", **options})
    assert error.value.key == key
