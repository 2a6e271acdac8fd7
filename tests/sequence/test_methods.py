"""Every method through the runner, on real files, a real (very small) model and real training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sfa_hf.errors import ConfigError
from sfa_hf.methods import Stage, known_methods, make_method
from sfa_hf.sequence import keeping, make_config, run_sequence
from sfa_hf.sequence.borrowing import borrow_first_task
from sfa_hf.sequence.config import RunConfig
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

STEPS = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data(tmp_path_factory.mktemp("data"))


class Runs:
    """Runs of one base, data and seed, each made once: a run's folder by its method's options."""

    def __init__(self, base: str, data: Path, folder: Path) -> None:
        self._base, self._data, self._folder = base, data, folder

    def values(self, **method: Any) -> dict[str, Any]:
        name = "-".join(f"{key}-{value}" for key, value in method.items())
        values = small_values(self._base, self._data, self._folder / name, STEPS)
        return {**values, "method": method, "sequence": values["sequence"][:2], "evaluation": {"limit": 4}}

    def __call__(self, **method: Any) -> Path:
        values = self.values(**method)
        if not Path(values["output_dir"], "results.json").is_file():
            run_sequence(make_config(values))
        return Path(values["output_dir"])


@pytest.fixture(scope="module")
def runs(base: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(base, data, tmp_path_factory.mktemp("runs"))


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in load_file(Path(folder) / "model.safetensors").items()}


def task_folder(run: Path, index: int) -> Path:
    return run / f"{index}-{TASKS[index]}"


def scores(run: Path) -> list[list[float]]:
    return json.loads((run / "results.json").read_text())["scores"]


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_a_single_tasks_model_knows_of_no_other_task(runs: Runs) -> None:
    """The first task is trained alike; a later one starts from the base, so its training is its own."""
    single, plain = runs(name="single_task"), runs(name="sequential")
    first, second, other = (
        task_folder(run, i) / "model" for run, i in ((single, 0), (single, 1), (plain, 1))
    )
    assert (first / "model.safetensors").read_bytes() == (
        task_folder(plain, 0) / "model" / "model.safetensors"
    ).read_bytes()
    assert any(not torch.equal(value, weights(other)[name]) for name, value in weights(second).items())
    assert scores(single)[1] == scores(plain)[1]


@pytest.mark.slow
def test_joint_trains_once_on_everything(runs: Runs) -> None:
    run = runs(name="joint")
    found = scores(run)
    assert found[1] == found[2]
    models = [task_folder(run, i) / "model" / "model.safetensors" for i in range(2)]
    assert len({model.stat().st_ino for model in models}) == 1, "one file under three names"
    config = make_config(runs.values(name="joint"))
    assert config.training[0]["max_steps"] == 2 * STEPS
    stage_rows = config.method.rows(_stage(config))
    assert len(stage_rows) == 2 * 40


def test_joint_refuses_tasks_that_train_differently(runs: Runs) -> None:
    values = runs.values(name="joint")
    values["sequence"][1] = {**values["sequence"][1], "training": {"learning_rate": 1e-4}}
    with pytest.raises(ConfigError, match=r"learning_rate is 0\.005 / 0\.0001"):
        make_config(values)


def _stage(config: RunConfig) -> Stage:
    return Stage(0, config.tasks, "base", Path("nowhere"))


@pytest.mark.slow
def test_rehearsal_keeps_a_buffer_of_each_past_task(runs: Runs) -> None:
    run = runs(name="rehearsal", fraction=0.1)
    buffer = json.loads((task_folder(run, 0) / "buffer.json").read_text())["rows"]
    assert len(buffer) == 4
    assert not (task_folder(run, 1) / "buffer.json").exists()
    prompts = {(f"{TASKS[0]} {i} is", f" {i % 10}") for i in range(40)}
    assert {(prompt, target) for _, prompt, target, _ in buffer} <= prompts
    plain = runs(name="sequential")
    assert scores(run)[1] == scores(plain)[1], "the first task has nothing to rehearse"
    second = [weights(task_folder(each, 1) / "model") for each in (run, plain)]
    assert any(not torch.equal(value, second[1][name]) for name, value in second[0].items())


def test_a_buffer_once_drawn_is_what_is_rehearsed(runs: Runs) -> None:
    run = runs(name="rehearsal", fraction=0.1)
    config = make_config(runs.values(name="rehearsal", fraction=0.1))
    past = Stage(0, config.tasks, "base", task_folder(run, 0))
    rows = config.method.rows(Stage(1, config.tasks, "base", task_folder(run, 1), (past,)))
    kept = json.loads((task_folder(run, 0) / "buffer.json").read_text())["rows"]
    assert [(row.prompt, row.target) for row in rows[40:]] == [
        (prompt, target) for _, prompt, target, _ in kept
    ]
    assert [row.prompt for row in rows[:40]] == [f"{TASKS[1]} {i} is" for i in range(40)]


def test_a_buffer_larger_than_the_data_is_refused(runs: Runs) -> None:
    config = make_config(runs.values(name="rehearsal", buffer_rows=41))
    with pytest.raises(ConfigError, match="buffer_rows: is 41, and task sums has 40 rows"):
        run_sequence(config)
    assert not config.output_dir.exists()


@pytest.mark.slow
def test_wise_ft_from_the_start_is_sfa_with_one_merge(runs: Runs) -> None:
    wise, sfa = runs(name="wise_ft", alpha=0.7), runs(name="sfa", beta=0.3, p=1.0)
    for index in range(2):
        assert_equal(weights(task_folder(wise, index) / "model"), weights(task_folder(sfa, index) / "model"))
    assert (task_folder(wise, 1) / "trained" / "model.safetensors").is_file()
    assert not (task_folder(wise, 0) / "trained").exists()


@pytest.mark.slow
def test_wise_ft_with_the_base_leaves_training_alone(runs: Runs, base: str) -> None:
    wise, plain = runs(name="wise_ft", alpha=0.7, zero_shot="base"), runs(name="sequential")
    for index in (1,):
        unmerged = weights(task_folder(plain, index) / "model")
        assert_equal(weights(task_folder(wise, index) / "trained"), unmerged)
        expected = {name: 0.3 * value + 0.7 * unmerged[name] for name, value in weights(base).items()}
        assert_equal(weights(task_folder(wise, index) / "model"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("vectors", ["independent", "sequential"])
def test_task_arithmetic_adds_the_task_vectors(runs: Runs, base: str, vectors: str) -> None:
    run = runs(name="task_arithmetic", vectors=vectors, **{"lambda": 0.5})
    source = runs(name="single_task") if vectors == "independent" else runs(name="sequential")
    start = weights(base)
    trained = [weights(task_folder(source, index) / "model") for index in range(2)]
    for index in range(2):
        assert_equal(weights(task_folder(run, index) / "trained"), trained[index])
        expected = {
            name: value + 0.5 * sum(each[name] - value for each in trained[: index + 1])
            for name, value in start.items()
        }
        assert_equal(weights(task_folder(run, index) / "model"), expected)


@pytest.mark.slow
def test_ties_and_dare_keep_what_their_options_say(runs: Runs, base: str) -> None:
    start, single = weights(base), runs(name="single_task")
    ties = weights(task_folder(runs(name="ties", density=0.1, threshold="tensor"), 0) / "model")
    dare = weights(task_folder(runs(name="dare", drop=0.5, **{"lambda": 1.0}), 0) / "model")
    trained = weights(task_folder(single, 0) / "model")
    for name, value in start.items():
        moved, tau = trained[name] - value, (ties[name] - value).abs()
        kept = moved.abs() >= moved.abs().flatten().topk(max(1, moved.numel() // 10)).values[-1]
        assert_equal({name: tau}, {name: moved.abs() * kept})
        doubled = (dare[name] - value - 2 * moved).abs() < 1e-6
        assert (doubled | (dare[name] == value)).all()
    assert any(not torch.equal(dare[name], value) for name, value in start.items())


@pytest.mark.slow
def test_an_interrupted_run_merges_what_it_would_have(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed between the training and the merge of the second task."""
    values = {**runs.values(name="ties"), "output_dir": str(tmp_path / "run")}
    merge, calls = keeping.merge_checkpoints, []

    def dies(recipe: Any, out: Path) -> None:
        calls.append(out)
        if len(calls) == 2:
            raise RuntimeError("killed")
        merge(recipe, out)

    monkeypatch.setattr(keeping, "merge_checkpoints", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run_sequence(make_config(values))
    run_sequence(make_config(values))
    for index in range(2):
        found, whole = (task_folder(run, index) / "model" for run in (tmp_path / "run", runs(name="ties")))
        assert (found / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert scores(tmp_path / "run") == scores(runs(name="ties"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "ties", "density": 0}, "method.density: is 0"),
        ({"name": "task_arithmetic", "lambda": math.nan}, "method.lambda: is nan"),
        ({"name": "sequential", "beta": 0.5}, "method.beta: is not an option of sequential"),
        ({"name": "rehearsal", "fraction": 1.5}, "method.fraction: is 1.5"),
        ({"name": "rehearsal", "fraction": 0.1, "buffer_rows": 3}, "one of buffer_rows and fraction"),
        ({"name": "dare", "drop": 1}, "method.drop: is 1"),
        ({"name": "wise_ft", "alpha": 2}, "method.alpha: is 2"),
        ({"name": "wise_ft", "alfa": 0.2}, "did you mean 'alpha'"),
        ({"name": "ties", "vectors": "both"}, "method.vectors: is 'both'"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        make_method(options)


def test_every_method_is_made_by_its_name_alone() -> None:
    assert {name: make_method({"name": name}).name for name in known_methods()} == {
        name: name for name in known_methods()
    }


@pytest.mark.slow
def test_a_run_may_begin_with_the_first_task_of_another(runs: Runs, tmp_path: Path) -> None:
    values = {**runs.values(name="sfa", beta=0.5, p=0.5), "output_dir": str(tmp_path / "borrowed")}
    assert borrow_first_task(make_config(values), runs(name="sequential"))
    first = [
        task_folder(run, 0) / "model" / "model.safetensors"
        for run in (tmp_path / "borrowed", runs(name="sequential"))
    ]
    assert first[0].stat().st_ino == first[1].stat().st_ino
    run_sequence(make_config(values))
    alone = runs(name="sfa", beta=0.5, p=0.5)
    assert (task_folder(tmp_path / "borrowed", 1) / "model" / "model.safetensors").read_bytes() == (
        task_folder(alone, 1) / "model" / "model.safetensors"
    ).read_bytes()
    found, expected = (
        json.loads((run / "results.json").read_text()) for run in (tmp_path / "borrowed", alone)
    )
    same = ("scores", "stderr", "metrics_used", "transitions", "engine", "method")
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    assert found["cost"]["train_seconds"] > 0


@pytest.mark.parametrize(
    "different",
    [
        {"method": {"name": "joint"}},
        {"method": {"name": "sfa", "first_task": True}},
        {"seed": 1},
        {"evaluation": {"limit": 3}},
    ],
)
def test_nothing_is_borrowed_from_a_run_that_trains_otherwise(
    runs: Runs, tmp_path: Path, different: dict[str, Any]
) -> None:
    values = {**runs.values(name="rehearsal", fraction=0.1), "output_dir": str(tmp_path / "run"), **different}
    assert not borrow_first_task(make_config(values), runs(name="sequential"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sfa_fisher_hands_the_second_moments_from_task_to_task(runs: Runs) -> None:
    run = runs(name="sfa_fisher", beta=0.5, p=0.5)
    facts = [json.loads((task_folder(run, i) / "_second_moments/facts.json").read_text()) for i in range(2)]
    assert [(each["tasks"], each["steps"], each["alpha"]) for each in facts] == [
        (1, STEPS, 1.0),
        (2, STEPS, 0.5),
    ]
    merges = json.loads((run / "results.json").read_text())["merges"]
    assert [merge["step"] for merge in merges] == [2, 4]
    assert all(0 < mean < 1 for merge in merges for mean in merge["anchor_weight"].values())
    assert {"all", "attention", "mlp", "norms", "embeddings"} == merges[0]["anchor_weight"].keys()
