"""One sequence on one process, and on two under DDP, ZeRO-2 and ZeRO-3: the same model and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import run_ranks
from safetensors.torch import load_file

from sfa_hf.errors import ConfigError
from sfa_hf.models import Recipe, resolve_model

TASKS = ("sums", "words")
SMALLEST = Recipe("llama", hidden=32, layers=1, heads=2, vocabulary=300, documents=40, steps=2, batch=4)
GLOBAL_BATCH = 4
ROOT = Path(__file__).parents[2]
LAUNCHES = {
    "ddp": {},
    "zero2": {"deepspeed": str(ROOT / "configs/deepspeed/zero2.json")},
    "zero3": {"deepspeed": str(ROOT / "configs/deepspeed/zero3.json")},
}
# fp32 training on other ranks adds the same gradients in another order: 16 steps of AdamW at this rate
# turn that into far less than this in any weight; a lost or doubled merge moves weights by 1e-2.
TOLERANCE = 1e-5


def run_one(values: dict[str, Any]) -> str:
    """What one process of a launch does."""
    from sfa_hf.distributed import clean_end
    from sfa_hf.sequence import make_config, run_sequence

    with clean_end():
        return str(run_sequence(make_config(values)))


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.mktemp("data")
    for offset, task in enumerate(TASKS):
        rows = [{"q": f"{task} {i} is", "a": f" {(i + offset) % 10}"} for i in range(40)]
        (data / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = resolve_model("builtin:llama", cache_dir=tmp_path_factory.mktemp("models"), recipe=SMALLEST)
    tasks = [
        {
            "name": name,
            "prompt": "{{ q }}",
            "target": "{{ a }}",
            "train": [{"path": f"{name}.jsonl"}],
            "heldout": [{"path": f"{name}.jsonl", "limit": 7}],
            "scoring": {"kind": "generate", "max_new_tokens": 2},
        }
        for name in TASKS
    ]
    return {
        "model": {"name_or_path": base},
        "sequence": tasks,
        "method": {"name": "sfa", "beta": 0.5, "p": 0.5},
        "training": {"max_steps": 8, "learning_rate": 1e-3},
        "data": {"dir": str(data), "max_length": 32},
    }


def _launch(values: dict[str, Any], ranks: int, folder: Path, training: dict[str, Any]) -> dict[str, Any]:
    batch = {"per_device_train_batch_size": GLOBAL_BATCH // ranks}
    changed = {**values, "training": {**values["training"], **batch, **training}, "output_dir": str(folder)}
    paths = run_ranks(run_one, ranks, values=changed)
    assert paths == [str(folder / "results.json")] * ranks
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def alone(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    _launch(values, 1, folder, {})
    return folder


@pytest.mark.parametrize("engine", ["ddp", pytest.param("zero2", marks=pytest.mark.slow), "zero3"])
def test_two_processes_train_the_model_that_one_does(
    engine: str, alone: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    expected = json.loads((alone / "results.json").read_text())
    found = _launch(values, 2, tmp_path / "run", LAUNCHES[engine])
    assert (found["engine"], found["world_size"]) == (engine, 2)
    assert found["scores"] == expected["scores"]
    assert found["transitions"] == expected["transitions"]
    for task in TASKS:
        for stage in ("after-0", "after-1", "after-2"):  # greedy answers: the same text, row by row
            records = tmp_path / "run" / "records" / stage / f"{task}.jsonl"
            assert records.read_text() == (alone / "records" / stage / f"{task}.jsonl").read_text(), stage
    for merge, reference in zip(found["merges"], expected["merges"], strict=True):
        assert (merge["task"], merge["step"]) == (reference["task"], reference["step"])
        assert merge["drift_before"] == pytest.approx(reference["drift_before"], rel=1e-4)
    for index, task in enumerate(TASKS):
        kept = load_file(tmp_path / "run" / f"{index}-{task}" / "model" / "model.safetensors")
        for name, tensor in load_file(alone / f"{index}-{task}" / "model" / "model.safetensors").items():
            assert (kept[name] - tensor).abs().max().item() < TOLERANCE, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [{"name": "ties"}, {"name": "joint"}, {"name": "rehearsal", "fraction": 0.2}, {"name": "wise_ft"}],
    ids=lambda method: method["name"],
)
@pytest.mark.parametrize("engine", LAUNCHES)
def test_a_methods_model_does_not_depend_on_the_engine(
    values: dict[str, Any], tmp_path: Path, engine: str, method: dict[str, Any]
) -> None:
    chosen = {**values, "method": method}
    alone = _launch(chosen, 1, tmp_path / "alone", {})
    together = _launch(chosen, 2, tmp_path / "together", LAUNCHES[engine])
    assert together["scores"] == alone["scores"]
    for index, task in enumerate(TASKS):
        found, expected = (
            load_file(tmp_path / run / f"{index}-{task}" / "model" / "model.safetensors")
            for run in ("together", "alone")
        )
        for name, value in expected.items():
            assert (found[name] - value).abs().max() < TOLERANCE, name


ADAPTED = {
    "carried": ({"name": "sfa", "beta": 0.5, "p": 0.5}, "carry"),
    "factors": ({"name": "sfa", "beta": 0.5, "p": 0.5, "lora": "factors"}, "carry"),
    "merged": ({"name": "sfa", "beta": 0.5, "p": 0.5}, "merge"),
    "kept": ({"name": "o_lora"}, "keep"),
    "slao": ({"name": "slao"}, None),
}


def adapted(values: dict[str, Any], method: dict[str, Any], after_task: str | None) -> dict[str, Any]:
    options = {"r": 2, "alpha": 4} | ({} if after_task is None else {"after_task": after_task})
    return {**values, "method": method, "model": {**values["model"], "peft": options}}


@pytest.mark.parametrize(
    ("case", "engines"),
    [("merged", ["ddp"]), *(pytest.param(case, list(LAUNCHES), marks=pytest.mark.slow) for case in ADAPTED)],
)
def test_adapters_do_not_depend_on_the_engine(
    values: dict[str, Any], tmp_path: Path, case: str, engines: list[str]
) -> None:
    chosen = adapted(values, *ADAPTED[case])
    alone = _launch(chosen, 1, tmp_path / "alone", {})
    for engine in engines:
        if (case, engine) == ("kept", "zero3"):
            continue  # refused, see below
        together = _launch(chosen, 2, tmp_path / engine, LAUNCHES[engine])
        assert together["scores"] == alone["scores"], engine
        assert len(together["merges"]) == len(alone["merges"]), engine
        for index, task in enumerate(TASKS):
            (file,) = (tmp_path / "alone" / f"{index}-{task}" / "model").glob("*.safetensors")
            found = load_file(tmp_path / engine / f"{index}-{task}" / "model" / file.name)
            for name, value in load_file(file).items():
                assert (found[name] - value).abs().max() < TOLERANCE, (engine, name)


def refusal(values: dict[str, Any]) -> str:
    """What one process of a launch is told."""
    from sfa_hf.sequence import make_config, run_sequence

    with pytest.raises(ConfigError) as caught:
        run_sequence(make_config(values))
    return str(caught.value)


def test_kept_adapters_on_a_split_base_are_refused_before_the_first_task(
    values: dict[str, Any], tmp_path: Path
) -> None:
    chosen = adapted(values, *ADAPTED["kept"])
    training = {**values["training"], **LAUNCHES["zero3"], "per_device_train_batch_size": 2}
    changed = {**chosen, "training": training, "output_dir": str(tmp_path / "run")}
    for told in run_ranks(refusal, 2, values=changed):
        assert told.startswith("model.peft.after_task: is keep, and ZeRO-3 splits the base")
    assert not (tmp_path / "run").exists()
