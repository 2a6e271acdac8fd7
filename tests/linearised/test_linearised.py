"""The linearised model against finite differences, explicit Jacobians and the model itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from families import CLASSES, batch, float64_throughout, nudge, tiny
from tiny_training import arguments
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, Trainer

from sfa_hf.errors import ConfigError
from sfa_hf.linearised import is_linearised, linearise, load_linearised


def with_lora(model: nn.Module) -> Any:
    torch.manual_seed(7)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


@pytest.fixture(params=[(family, tied) for family in CLASSES for tied in (False, True)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A model, and its linearisation there with other weights; all in float64."""
    family, tied = request.param
    plain = tiny(family, tie_word_embeddings=tied, attn_implementation="eager").double().eval()
    linear = linearise(copy.deepcopy(plain))
    nudge(linear, 0.05)
    return plain, linear


@float64_throughout()
def test_it_is_the_tangent_that_finite_differences_find(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, linear = pair
    inputs, theta_0 = batch(), parameters(plain)
    step = {name: each - theta_0[name] for name, each in parameters(linear).items()}
    found = linear(**inputs, output_hidden_states=True)
    for name in ("logits", "hidden_states"):
        at_0 = outputs(plain, theta_0, inputs, name)
        slope = central_difference(plain, theta_0, step, inputs, name)
        got = found[name][-1] if name == "hidden_states" else found[name]
        assert (got - (at_0 + slope)).abs().max() < 1e-8
        assert slope.abs().max() > 1e-2, "a tangent too small to notice"
    assert (found.logits - outputs(plain, parameters(linear), inputs, "logits")).abs().max() > 1e-3, (
        "the model is not linear"
    )


@pytest.mark.parametrize("family", CLASSES)
def test_at_theta_0_it_is_the_model(family: str) -> None:
    model = tiny(family)
    linear, inputs = linearise(copy.deepcopy(model)), batch()
    want, got = model.eval()(**inputs), linear.eval()(**inputs)
    # eager attention in place of sdpa: the same function, summed in another order
    assert torch.allclose(got.logits, want.logits, atol=1e-6)
    assert got.loss.item() == pytest.approx(want.loss.item(), abs=1e-6)
    model.set_attn_implementation("eager")
    assert torch.equal(linear(**inputs).logits, model(**inputs).logits)


@float64_throughout()
def test_gradients_are_those_of_the_explicit_jacobian(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, linear = pair
    inputs, theta_0 = batch(), parameters(plain)
    jacobian = torch.func.jacrev(lambda weights: outputs(plain, weights, inputs, "logits"))(theta_0)
    linear(**inputs).loss.backward()
    theta = {name: each.clone().requires_grad_() for name, each in parameters(linear).items()}
    logits = outputs(plain, theta_0, inputs, "logits")
    for name, rows in jacobian.items():
        logits = logits + (rows * (theta[name] - theta_0[name])).flatten(3).sum(-1)
    labels = inputs["labels"][:, 1:].flatten()
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels).backward()
    for name, parameter in linear.named_parameters():
        assert torch.allclose(parameter.grad, theta[name].grad, rtol=1e-9, atol=1e-12), name


def test_dropout_takes_the_same_mask_for_both_terms() -> None:
    """With other masks for the two terms, doubling theta - theta_0 would not double the difference."""
    model = linearise(tiny("pythia", hidden_dropout=0.5))
    model.train()
    start, differences = parameters(model), []
    for size in (0.0, 0.1, 0.2):
        model.load_state_dict({name: each + size for name, each in start.items()}, strict=False)
        torch.manual_seed(11)
        differences.append(model(**batch()).logits)
    zero, once, twice = differences
    assert torch.allclose(twice - zero, 2 * (once - zero), rtol=1e-4, atol=1e-5)
    assert (once - zero).abs().max() > 0.1


@pytest.mark.parametrize("family", CLASSES)
def test_it_generates_with_its_cache_what_it_generates_without(family: str) -> None:
    model = linearise(tiny(family).eval())
    nudge(model, 0.05)
    inputs = {key: value.flip(-1) for key, value in batch().items() if key != "labels"}  # padded on the left
    greedy = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    for beams in (1, 3):
        with_cache, without = (
            model.generate(**inputs, **greedy, num_beams=beams, use_cache=cached) for cached in (True, False)
        )
        assert torch.equal(with_cache, without)
    plain = AutoModelForCausalLM.from_config(model.config)
    plain.load_state_dict(model.state_dict())
    step = model(**inputs, use_cache=False).logits - plain.eval()(**inputs).logits
    assert step.abs().max() > 1e-3, "generated by a model that is as good as linear"


def test_a_trainer_trains_it_and_saves_an_ordinary_model(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    save(tiny("llama"), base)
    model = linearise(AutoModelForCausalLM.from_pretrained(base), base=str(base))
    rows = [{key: value[1] for key, value in batch(2, 9).items()} for _ in range(8)]
    training = arguments(tmp_path / "run", max_steps=12, learning_rate=1e-2, logging_steps=1)
    trainer = Trainer(model, training, train_dataset=rows)
    trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    assert losses[-1] < 0.6 * losses[0]
    trainer.save_model(str(out))
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert not is_linearised(plain)
    assert all(torch.equal(plain.state_dict()[name], each) for name, each in model.state_dict().items())
    (out / "tokenizer.json").write_text((base / "tokenizer.json").read_text())
    again, _ = load_linearised(str(out))
    assert torch.equal(again(**batch()).logits, model(**batch()).logits)
    nudge(changed := AutoModelForCausalLM.from_pretrained(base), 0.01)
    changed.save_pretrained(base)
    with pytest.raises(ConfigError, match="other weights"):
        load_linearised(str(out))


def test_of_a_peft_model_only_the_adapters_are_linearised(tmp_path: Path) -> None:
    frozen = tiny("qwen").eval()
    model = with_lora(copy.deepcopy(frozen))
    nudge(model, 0.2)  # B is not 0 now, so that A counts too
    first = parameters(model)
    with_adapters = model.eval()(**batch()).logits
    linearise(model)
    assert torch.allclose(model(**batch()).logits, with_adapters, atol=1e-5)
    names = set(model.get_base_model().theta_0.tensors)
    assert names
    assert all("lora" in name for name in names)
    nudge(model, 0.05, seed=6)
    model(**batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    before = model(**batch()).logits
    save(frozen, tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    again, _ = load_linearised(str(tmp_path / "adapter"))
    assert torch.allclose(again.eval()(**batch()).logits, before, atol=1e-6)
    scaled = {name: 2 * each - first[name] for name, each in parameters(model).items()}
    model.load_state_dict(scaled, strict=False)
    twice = model(**batch()).logits
    assert torch.allclose(twice - with_adapters, 2 * (before - with_adapters), atol=1e-4)


def test_frozen_weights_stand_at_theta_0_or_keep_their_distance_to_it(tmp_path: Path) -> None:
    base = tiny("llama").eval()
    save(base, tmp_path)
    model = copy.deepcopy(base)
    model.get_input_embeddings().requires_grad_(requires_grad=False)  # frozen where it was
    nudge(model, 0.05)
    moved = model.model.layers[0].mlp.up_proj.weight.requires_grad_(requires_grad=False)
    free = linearise(copy.deepcopy(base), base=str(tmp_path))
    free.load_state_dict(model.state_dict())
    linearise(model, base=str(tmp_path))
    assert "model.embed_tokens.weight" not in model.theta_0.tensors
    assert torch.allclose(model(**batch()).logits, free(**batch()).logits, atol=1e-6)
    model(**batch()).loss.backward()
    assert moved.grad is None


def test_a_bfloat16_pass_keeps_the_float32_difference() -> None:
    model = linearise(tiny("llama"))
    nudge(model, 1e-4)
    exact = model(**batch()).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**batch()).logits
        zero = linearise(tiny("llama"))(**batch()).logits
    wanted = exact - linearise(tiny("llama"))(**batch()).logits
    assert ((rounded - zero) - wanted).norm() < 0.2 * wanted.norm()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: setattr(model.config, "_attn_implementation_internal", "flash_attention_2"), "flash"),
        (lambda model: setattr(model.config, "_attn_implementation_internal", "flex_attention"), "flex"),
        (lambda model: setattr(model.config, "model_type", "mamba"), "mamba"),
        (lambda model: model.gradient_checkpointing_enable(), "gradient checkpointing"),
    ],
    ids=["flash", "flex", "family", "checkpointing"],
)
def test_what_cannot_be_linearised_is_refused_by_name(change: Any, says: str) -> None:
    model = tiny("llama")
    change(model)
    with pytest.raises(NotImplementedError, match=says):
        linearise(model)


def test_what_is_switched_on_later_is_refused_too(tmp_path: Path) -> None:
    training = arguments(tmp_path, gradient_checkpointing=True)
    rows = [{key: value[1] for key, value in batch().items()} for _ in range(8)]
    with pytest.raises(NotImplementedError, match="gradient checkpointing"):
        Trainer(linearise(tiny("llama")), training, train_dataset=rows).train()
    model = tiny("llama")
    model.get_input_embeddings().requires_grad_(requires_grad=False)
    linearise(model)
    model.requires_grad_(requires_grad=True)
    with pytest.raises(ConfigError, match="frozen when the model was linearised"):
        model(**batch())


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"base": "no/where/here"}, "base"),
        ({"theta_0": {"model.norm.weight": torch.zeros(3)}}, "theta_0"),
        ({"theta_0_dtype": "int8"}, "theta_0_dtype"),
        ({"theta_0_device": "disk"}, "theta_0_device"),
        ({"base": "x", "theta_0": {}}, "base"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        linearise(tiny("llama"), **given)
    assert error.value.key == key
    assert "\n" not in str(error.value)


def test_theta_0_in_host_memory_and_in_bfloat16_is_the_same_theta_0() -> None:
    base = tiny("llama").bfloat16().float()  # stored in bf16: nothing is lost
    models = [
        linearise(copy.deepcopy(base), theta_0_device=place, theta_0_dtype=dtype)
        for place, dtype in (("device", None), ("cpu", "bfloat16"))
    ]
    for model in models:
        nudge(model, 0.05)
    first, second = (model(**batch()).logits for model in models)
    assert torch.equal(first, second)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def outputs(model: nn.Module, weights: dict[str, Tensor], inputs: dict[str, Tensor], name: str) -> Tensor:
    call = {**inputs, "labels": None, "use_cache": False, "output_hidden_states": name == "hidden_states"}
    found = functional_call(model, weights, (), call)[name]
    return found[-1] if name == "hidden_states" else found


def central_difference(
    model: nn.Module,
    theta_0: dict[str, Tensor],
    step: dict[str, Tensor],
    inputs: dict[str, Tensor],
    name: str,
) -> Tensor:
    """Slope along ``step``, of fourth order."""
    h = 1e-4

    def at(t: float) -> Tensor:
        return outputs(model, {key: each + t * step[key] for key, each in theta_0.items()}, inputs, name)

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def save(model: nn.Module, folder: Path) -> None:
    """With a tokenizer of single characters, which every saved model has."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    words = models.WordLevel({chr(97 + i): i for i in range(model.config.vocab_size)}, unk_token="a")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="b").save_pretrained(folder)
