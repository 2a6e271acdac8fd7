"""What would fail at a later task is refused before the first, and leaves no run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM

from sfa_hf.errors import ConfigError
from sfa_hf.methods import Stage, make_method
from sfa_hf.models import model_without_values
from sfa_hf.sequence import make_config, run_sequence
from sfa_hf.sequence.dry_run import dry_run
from tests.sequence.small_run import small_base, small_data, small_values

FIRST = Stage(index=0, tasks=(), base="base", folder=Path("0"))
SECOND = Stage(index=1, tasks=(), base="base", folder=Path("1"), past=(FIRST,))
READS_ANCHORS = ("cmm", "ewc", "l2", "sfa", "sfa_fisher")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def experts(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mixture of experts, which transformers fuses in memory."""
    folder = tmp_path_factory.mktemp("experts") / "mixtral"
    shutil.copytree(base, folder)
    config = MixtralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_the_model_without_values_has_names_and_shapes_alone(base: str) -> None:
    model = model_without_values(base)
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
    assert "gpt_neox.embed_in.weight" in dict(model.named_parameters())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        *[
            (
                {"name": name, "include": "zzz"},
                r"^method\.include: include='zzz'.*names like gpt_neox\.embed_in",
            )
            for name in READS_ANCHORS[1:]
        ],
        ({"name": "l2", "decoupled": True, "exclude": ""}, r"^method\.exclude: .*exclude=''"),
        (
            {"name": "cmm", "correction_parameters": "zzz"},
            r"^method\.correction_parameters: 'zzz' ",
        ),
        ({"name": "cmm", "correction_layer": 9}, r"^method\.correction_layer: 9 is not the output"),
    ],
)
def test_options_that_do_not_suit_the_model(base: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        dry_run(make_method(options), [FIRST, SECOND], base)


@pytest.mark.parametrize(
    "options",
    [{"name": name} for name in READS_ANCHORS] + [{"name": "sfa", "include": "mlp", "exclude": "bias"}],
    ids=str,
)
def test_what_suits_the_model_passes(base: str, options: dict[str, Any]) -> None:
    dry_run(make_method(options), [FIRST, SECOND], base)


@pytest.mark.parametrize("name", READS_ANCHORS)
def test_a_mixture_of_experts_can_be_read_back(experts: str, name: str) -> None:
    dry_run(make_method({"name": name}), [FIRST, SECOND], experts)


@pytest.mark.slow
def test_experts_are_anchored_in_a_sequence(experts: str, tmp_path: Path) -> None:
    values = small_values(experts, small_data(tmp_path), tmp_path / "run", steps=2)
    values["sequence"] = values["sequence"][:2]
    values["method"] = {"name": "sfa", "beta": 1.0, "p": 1.0}
    run_sequence(make_config(values))
    first, second = (
        load_file(tmp_path / f"run/{task}/model/model.safetensors") for task in ("0-sums", "1-words")
    )
    assert any(".experts.1.w1." in name for name in first)
    assert all(torch.equal(second[name], weight) for name, weight in first.items())


@pytest.mark.parametrize("name", READS_ANCHORS)
def test_a_model_whose_anchor_could_not_be_read(
    experts: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with an architecture that saves under names which it does not know when it loads.
    monkeypatch.setattr("sfa_hf.shards.converted.get_model_conversion_mapping", lambda _: [])
    line = r"^model\.name_or_path: model\.layers\.0\.mlp\.\S+ of Mixtral\w+ could not be read as an anchor"
    method = make_method({"name": name})
    with pytest.raises(ConfigError, match=line):
        dry_run(method, [FIRST, SECOND], experts)
    if name != "cmm":  # which corrects from the second task on, but looks at the model for all
        dry_run(method, [FIRST], experts)


@pytest.mark.parametrize("name", ["sequential", "ema", "wise_ft", "rehearsal"])
def test_methods_without_an_anchor_take_such_a_model(experts: str, name: str) -> None:
    dry_run(make_method({"name": name}), [FIRST, SECOND], experts)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"method": {"name": "sfa", "include": "zzz"}}, "method.include"),
        ({"method": {"name": "cmm", "correction_layer": 9}}, "method.correction_layer"),
    ],
)
def test_a_run_is_refused_before_its_folder_is_made(
    base: str, tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    values = {**small_values(base, small_data(tmp_path), tmp_path / "run", steps=2), **change}
    with pytest.raises(ConfigError) as error:
        run_sequence(make_config(values))
    assert error.value.key == key
    assert not (tmp_path / "run").exists()
