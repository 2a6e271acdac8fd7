"""A correction brings features back to the teacher's, and leaves alone what it does not train."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation import small_models
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from sfa_hf.correction import correct, default_parameters, feature_mismatch
from sfa_hf.errors import ConfigError
from sfa_hf.linearised import linearise
from sfa_hf.tasks import Encoding, collator, encode

BATCH = {"per_device_train_batch_size": 8, "disable_tqdm": True}


@pytest.fixture(scope="module")
def rows() -> Any:
    return encode(small_models.rows(120), small_models.tokenizer(), Encoding(max_length=48, loss_on="all"))[0]


@pytest.fixture(scope="module")
def merged_and_trained(rows: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module]:
    """A model that was fine-tuned on the rows, and its average with where it came from."""
    base = small_models.model("llama", initializer_range=0.1)
    trained = copy.deepcopy(base)
    arguments = TrainingArguments(
        str(tmp_path_factory.mktemp("run")),
        learning_rate=5e-3,
        num_train_epochs=3,
        **BATCH,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    Trainer(trained, arguments, train_dataset=rows, data_collator=collator(small_models.tokenizer())).train()
    merged = copy.deepcopy(base)
    averages = {name: (each + trained.state_dict()[name]) / 2 for name, each in base.state_dict().items()}
    merged.load_state_dict(averages)
    return merged.train(), trained.eval()


@pytest.mark.parametrize(("loss", "layer"), [("l2", -1), ("l1", -1), ("l2", 1)])
def test_features_come_closer_to_the_teachers_on_held_out_rows(
    merged_and_trained: tuple[nn.Module, nn.Module], rows: Any, tmp_path: Path, loss: Any, layer: int
) -> None:
    merged, trained = map(copy.deepcopy, merged_and_trained)
    bits, modes = copied(merged), [module.training for module in merged.modules()]
    done = correct(
        merged,
        trained,
        rows.select(range(80)),
        small_models.tokenizer(),
        tmp_path,
        heldout=rows.select(range(80, 95)),
        loss=loss,
        layer=layer,
        learning_rate=1e-2,
        **BATCH,
    )
    assert done.after.mean < 0.8 * done.before.mean
    assert done.after.relative < 0.8 * done.before.relative
    assert done.before.tokens == sum(len(row["input_ids"]) for row in rows.select(range(80, 95)))
    changed = {name for name, each in copied(merged).items() if not torch.equal(each, bits[name])}
    assert changed == set(done.parameters)
    block = 0 if layer == 1 else 1
    norm = set() if layer == 1 else {"model.norm.weight"}
    assert changed == {f"model.layers.{block}.mlp.down_proj.weight", *norm}
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert [module.training for module in merged.modules()] == modes
    assert done.steps == 10, "one pass"


def test_the_papers_learning_rate_moves_weights_a_little(
    merged_and_trained: tuple[nn.Module, nn.Module], rows: Any, tmp_path: Path
) -> None:
    merged, trained = map(copy.deepcopy, merged_and_trained)
    before = copied(merged)
    done = correct(merged, trained, rows, small_models.tokenizer(), tmp_path, **BATCH)
    moved = max((copied(merged)[name] - before[name]).abs().max().item() for name in done.parameters)
    assert 0 < moved < 2e-7 * done.steps


def test_padding_has_no_part_in_it(
    merged_and_trained: tuple[nn.Module, nn.Module], rows: Any, tmp_path: Path
) -> None:
    results = []
    for pad in ("a", "b"):
        merged, trained = map(copy.deepcopy, merged_and_trained)
        tokenizer = copy.deepcopy(small_models.tokenizer())
        tokenizer.pad_token = pad
        correct(merged, trained, rows.select(range(24)), tokenizer, tmp_path, learning_rate=1e-2, **BATCH)
        results.append(merged.model.norm.weight)
    assert torch.equal(*results)


@pytest.mark.slow
def test_a_linearised_model_is_corrected_linearised(
    merged_and_trained: tuple[nn.Module, nn.Module], rows: Any, tmp_path: Path
) -> None:
    theta_0 = dict(small_models.model("llama", initializer_range=0.1).named_parameters())
    merged, trained = (linearise(copy.deepcopy(each), theta_0=theta_0) for each in merged_and_trained)
    kwargs = {"heldout": rows.select(range(80, 95)), "learning_rate": 1e-2, **BATCH}
    done = correct(merged, trained, rows.select(range(80)), small_models.tokenizer(), tmp_path, **kwargs)
    assert done.after.mean < 0.8 * done.before.mean


def test_mismatch_is_the_mean_distance_over_tokens(
    merged_and_trained: tuple[nn.Module, nn.Module], rows: Any
) -> None:
    merged, trained = merged_and_trained
    distances, norms = [], []
    for row in rows.select(range(7)):
        alone = torch.tensor([row["input_ids"]])
        own, right = (each.model(alone).last_hidden_state[0].double() for each in (merged, trained))
        distances += (own - right).norm(dim=-1).tolist()
        norms += right.norm(dim=-1).tolist()
    found = feature_mismatch(merged, trained, rows.select(range(7)), small_models.tokenizer(), batch_size=3)
    assert found.mean == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    assert found.relative == pytest.approx(sum(distances) / sum(norms), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", {"model.norm.weight", "model.layers.1.mlp.down_proj.weight"}),
        (
            "pythia",
            {"gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"}
            | {f"gpt_neox.layers.1.mlp.dense_4h_to_h.{part}" for part in ("weight", "bias")},
        ),
    ],
)
def test_the_default_is_the_final_norm_and_the_last_output_projection(family: str, names: set[str]) -> None:
    import re

    model = small_models.model(family)
    pattern = default_parameters(model)
    assert {name for name, _ in model.named_parameters() if re.search(pattern, name)} == names


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"parameters": "lm_tail"}, "parameters"),
        ({"parameters": "("}, "parameters"),
        ({"loss": "l3"}, "loss"),
        ({"layer": 0}, "layer"),
        ({"layer": 7}, "layer"),
        ({"teacher": "no/where/here"}, "teacher"),
        ({"rows": []}, "rows"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line(given: dict[str, Any], key: str, rows: Any, tmp_path: Path) -> None:
    model = small_models.model()
    arguments = {"teacher": small_models.model(), "rows": rows, **given}
    with pytest.raises(ConfigError) as error:
        correct(model, tokenizer=small_models.tokenizer(), output_dir=tmp_path, **arguments)
    assert error.value.key == key
    assert "\n" not in str(error.value)
    if given == {"parameters": "lm_tail"}:
        assert "model.layers.N.mlp.down_proj.weight" in str(error.value)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}
