"""Adapters through the runner: every method, what becomes of an adapter after its task, kills, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sfa_hf.adapters.merged import stack
from sfa_hf.adapters.new import new_adapter
from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.checkpoints.folder import open_model
from sfa_hf.comparison.displacement import displacements
from sfa_hf.errors import ConfigError
from sfa_hf.hf_trainer.checkpoints import CheckpointKeeper
from sfa_hf.models import load_model
from sfa_hf.sequence import make_config, run_sequence
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

peft = pytest.importorskip("peft")

STEPS = 2
PEFT = {"r": 2, "alpha": 4}


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """Half of the time of a run as small as these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfa_hf.sequence.outcome.write_report", lambda _: None)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def values(base: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    data = small_data(tmp_path_factory.mktemp("data"))
    runs = tmp_path_factory.mktemp("runs")

    def made(method: dict[str, Any], name: str = "run", **options: Any) -> dict[str, Any]:
        values = small_values(base, data, runs / name, STEPS)
        values["sequence"] = values["sequence"][:2]
        values["training"] |= {"save_steps": 1}
        values["model"]["peft"] = {**PEFT, **options}
        return {**values, "method": method, "evaluation": {"limit": 2}}

    return made


@pytest.fixture(scope="module")
def run(values: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """A run's folder, each made once."""

    def made(method: dict[str, Any], **options: Any) -> Path:
        name = "-".join(f"{key}-{value}" for key, value in {**method, **options}.items())
        wanted = values(method, name, **options)
        folder = Path(wanted["output_dir"])
        if not folder.exists():
            run_sequence(make_config(wanted))
        return folder

    return made


def part(run: Path, index: int, name: str = "model") -> Path:
    return run / f"{index}-{TASKS[index]}" / name


def factors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def weights(folder: str | Path) -> dict[str, Tensor]:
    """Of the whole model, as PEFT merges an adapter."""
    model, _ = load_model(str(folder), "float32")
    whole: Any = model.merge_and_unload() if isinstance(model, peft.PeftModel) else model
    return {name: value.double() for name, value in whole.state_dict().items()}


def update(folder: Path, base: str) -> dict[str, Tensor]:
    start = weights(base)
    return {name: value - start[name] for name, value in weights(folder).items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_bits(
    run: Callable[..., Path],
    values: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = {"name": "sfa", "beta": 0.5, "p": 0.5}
    whole = run(method)
    broken, save = values(method, "broken"), CheckpointKeeper.on_save

    def dies(keeper: CheckpointKeeper, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        save(keeper, args, state, *rest, **kwargs)
        if "1-words" in str(args.output_dir):
            raise RuntimeError("killed")

    monkeypatch.setattr(CheckpointKeeper, "on_save", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run_sequence(make_config(broken))
    monkeypatch.undo()
    folder = Path(broken["output_dir"])
    assert (part(folder, 1, "checkpoint-1") / "adapter_model.safetensors").is_file()
    run_sequence(make_config(broken))
    for index in range(2):
        found, expected = (part(each, index) / "adapter_model.safetensors" for each in (folder, whole))
        assert found.read_bytes() == expected.read_bytes()
        assert not (part(folder, index) / "model.safetensors").exists()
    results = [json.loads((each / "results.json").read_text()) for each in (folder, whole)]
    assert results[0]["scores"] == results[1]["scores"]
    assert [merge["step"] for merge in results[0]["merges"]] == [1, 2]
    assert all(value.any() for name, value in factors(part(whole, 0)).items()), "both factors were trained"
    distance = displacements(whole, TASKS[:2])
    assert distance is not None
    moved = [weights(part(whole, index)) for index in range(2)]
    expected_distance = sum(
        float((moved[1][name] - value).square().sum()) for name, value in moved[0].items()
    )
    assert distance[0] == pytest.approx(expected_distance**0.5, rel=1e-4)


@pytest.mark.slow
def test_carried_merged_kept_and_new(run: Callable[..., Path], base: str) -> None:
    carried, merged, kept, new = (
        run({"name": "sequential"}, after_task=each) for each in ("carry", "merge", "keep", "new")
    )
    first = factors(part(carried, 0))
    assert all(torch.equal(first[name], value) for name, value in factors(part(new, 0)).items())
    assert not (part(merged, 1) / "adapter_config.json").exists()
    assert_close(weights(part(merged, 0)), weights(part(carried, 0)))
    # the same second training, on the weights of the first
    assert_close(weights(part(kept, 1)), weights(part(merged, 1)))
    own = update(part(kept, 1, "trained"), base)
    both = {name: value + own[name] for name, value in update(part(kept, 0), base).items()}
    assert_close(update(part(kept, 1), base), both)
    single = run({"name": "single_task"})
    for name, value in factors(part(new, 1)).items():
        assert torch.equal(value, factors(part(single, 1))[name])


METHODS: list[dict[str, Any]] = [
    {"name": "sfa", "beta": 0.5, "lora": "factors"},
    {"name": "sfa_fisher", "lora": "factors"},
    {"name": "l2"},
    {"name": "l2", "decoupled": True, "lora": "factors"},
    {"name": "ewc", "fisher_rows": 2},
    {"name": "ewc", "fisher_rows": 2, "mode": "separate"},
    {"name": "rehearsal"},
    {"name": "ema"},
    {"name": "joint"},
    {"name": "ties"},
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_trains_adapters(run: Callable[..., Path], method: dict[str, Any]) -> None:
    folder = run(method)
    assert len(json.loads((folder / "results.json").read_text())["scores"]) == 3
    found, plain = (weights(part(each, 1)) for each in (folder, run({"name": "sequential"})))
    assert any(not torch.equal(value, plain[name]) for name, value in found.items())


@pytest.mark.slow
@pytest.mark.parametrize("after_task", ["merge", "keep", "new"])
def test_sfa_averages_new_adapters_with_no_update(run: Callable[..., Path], after_task: str) -> None:
    folder = run({"name": "sfa", "beta": 1.0, "p": 1.0}, after_task=after_task)
    trained = part(folder, 1, "model" if after_task == "new" else "trained")
    assert not any(value.any() for name, value in factors(trained).items() if "lora_B" in name)


@pytest.mark.slow
def test_saved_models_are_merged_as_updates(run: Callable[..., Path], base: str) -> None:
    wise, plain = run({"name": "wise_ft", "alpha": 0.7}), run({"name": "sequential"})
    first, second = (update(part(plain, index), base) for index in range(2))
    expected = {name: 0.3 * value + 0.7 * second[name] for name, value in first.items()}
    assert_close(update(part(wise, 1), base), expected)
    sums = run({"name": "task_arithmetic", "lambda": 0.5})
    alone = [update(part(sums, index, "trained"), base) for index in range(2)]
    expected = {name: 0.5 * (value + alone[1][name]) for name, value in alone[0].items()}
    assert_close(update(part(sums, 1), base), expected)


@pytest.mark.slow
def test_o_lora_holds_new_rows_away_from_old_ones(run: Callable[..., Path]) -> None:
    def overlap(folder: Path) -> float:
        past, own = factors(part(folder, 0)), factors(part(folder, 1, "trained"))
        return sum(float((own[n] @ past[n].mT).abs().sum()) for n in own if "lora_A" in n)

    held, free = (run({"name": "o_lora", "lambda": strength}) for strength in (100.0, 0.0))
    assert overlap(held) < overlap(free)
    kept = run({"name": "sequential"}, after_task="keep")
    for name, value in factors(part(kept, 1)).items():
        assert torch.equal(value, factors(part(free, 1))[name])


@pytest.mark.slow
def test_slao_starts_orthonormal_and_merges_b(run: Callable[..., Path]) -> None:
    folder = run({"name": "slao"})
    first, start = factors(part(folder, 0)), factors(part(folder, 0, "orthogonal"))
    trained, merged = factors(part(folder, 1, "trained")), factors(part(folder, 1))
    for name, value in merged.items():
        if "lora_A" in name:
            rows = start[name].double()
            torch.testing.assert_close(rows @ rows.mT, torch.eye(2).double(), atol=1e-6, rtol=0)
            coefficients = first[name].double() @ rows.mT  # lower triangular: R^T, its diagonal positive
            torch.testing.assert_close(coefficients @ rows, first[name].double(), atol=1e-6, rtol=1e-5)
            assert (coefficients.diagonal() > 0).all()
            assert torch.equal(value, trained[name])
        else:
            assert torch.equal(start[name], first[name])
            expected = first[name] + (trained[name] - first[name]) / 2**0.5
            torch.testing.assert_close(value, expected)


@pytest.mark.slow
def test_a_sequence_may_start_from_an_adapter(
    run: Callable[..., Path], values: Callable[..., dict[str, Any]]
) -> None:
    first = part(run({"name": "sequential"}), 0)
    wanted = values({"name": "sfa", "beta": 1.0, "p": 1.0, "first_task": True}, "from-adapter")
    wanted["model"]["name_or_path"] = str(first)
    run_sequence(make_config(wanted))
    for name, value in factors(part(Path(wanted["output_dir"]), 1)).items():
        torch.testing.assert_close(value, factors(first)[name])
    wanted["model"]["peft"]["r"] = 3
    wanted["output_dir"] += "-other"
    with pytest.raises(ConfigError, match=r"model\.peft\.r: is 3, and .* has 2"):
        run_sequence(make_config(wanted))


def test_an_opened_adapter_is_the_whole_model(base: str, tmp_path: Path) -> None:

    options = AdapterOptions(r=2, lora_alpha=3, use_rslora=True, rank_pattern={"dense": 1})
    for name in ("a", "b"):
        model, _ = load_model(base, "float32")
        adapted = new_adapter(model, options, name)
        with torch.no_grad():
            for factor, value in adapted.named_parameters():
                if "lora_B" in factor:
                    value.normal_(std=0.1)
        adapted.save_pretrained(tmp_path / name)
    stack(tmp_path / "a", tmp_path / "b", tmp_path / "ab")
    stack(tmp_path / "ab", tmp_path / "b", tmp_path / "abb")
    a, b = (update(tmp_path / name, base) for name in ("a", "b"))
    assert any(not torch.equal(value, b[name]) for name, value in a.items() if value.any())
    assert_close(update(tmp_path / "abb", base), {name: value + 2 * b[name] for name, value in a.items()})
    with ExitStack() as opened:
        tensors = open_model(str(tmp_path / "a"), "models.0", opened).tensors
        name = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
        found = tensors[name].read(0, tensors[name].numel).double()
    torch.testing.assert_close(found, weights(tmp_path / "a")[name].flatten())


@pytest.mark.parametrize(
    ("method", "options", "line"),
    [
        ({"name": "cmm"}, {}, r"^method\.name: cmm does not train adapters"),
        (
            {"name": "ewc"},
            {"after_task": "merge"},
            r"^model\.peft\.after_task: is merge, which ewc",
        ),
        ({"name": "o_lora"}, {"after_task": "carry"}, r"^model\.peft\.after_task: is carry.*\(keep\)"),
        ({"name": "o_lora"}, {"use_dora": True}, r"^model\.peft\.use_dora: is set, and a sum"),
        ({"name": "slao"}, {"lora_bias": True}, r"^method\.name: has lora_bias, and slao"),
        ({"name": "sfa_fisher"}, {}, r"^method\.lora: is exact, and second moments"),
        ({"name": "l2", "decoupled": True}, {}, r"^method\.lora: is exact, and a carried"),
        ({"name": "sfa"}, {"rank": 3}, r"^model\.peft\.rank: is not a known key"),
        ({"name": "sfa"}, {"r": 0}, r"^model\.peft\.r: 0 is not a rank"),
        ({"name": "sfa"}, {"after_task": "forget"}, r"^model\.peft\.after_task: unknown value 'forget'"),
        ({"name": "sfa"}, {"init_lora_weights": "pissa"}, r"^model\.peft\.init_lora_weights: is 'pissa'"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    values: Callable[..., dict[str, Any]], method: dict[str, Any], options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        make_config(values(method, "refused", **options))


def test_adapters_are_what_o_lora_and_slao_need(values: Callable[..., dict[str, Any]]) -> None:
    for name in ("o_lora", "slao"):
        wanted = values({"name": name}, "refused")
        del wanted["model"]["peft"]
        with pytest.raises(ConfigError, match=rf"^model\.peft: is not set, and {name} trains adapters"):
            make_config(wanted)


def test_layers_that_are_not_there_are_refused(
    values: Callable[..., dict[str, Any]],
) -> None:
    wanted = values({"name": "sfa"}, "refused", target_modules=["zzz"])
    with pytest.raises(ConfigError, match=r"^model\.peft: .*zzz"):
        run_sequence(make_config(wanted))
    assert not Path(wanted["output_dir"]).exists()
