r"""Merges of adapters are averages of the weights that they make: in float64, kind by kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from effective import Effective, EffectiveAfter, error
from tiny_training import VOCABULARY, tiny_model, train, weights
from torch import nn
from transformers import Trainer, TrainerCallback

from sfa_hf import SFACallback
from sfa_hf.errors import ConfigError

peft = pytest.importorskip("peft")

LINEAR = ["q_proj", "down_proj"]


class Convolutions(nn.Module):
    """A language model of one convolution, in groups or not, and a fused pair of experts."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.conv = nn.Conv1d(8, 12, 3, padding=1, groups=groups)
        self.experts = Experts()
        self.biased = nn.Linear(12, 10)
        self.head = nn.Linear(10, VOCABULARY)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.tanh(self.conv(self.embed(input_ids).mT).mT)
        logits = self.head(torch.tanh(self.biased(hidden + self.experts(hidden))))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 12, 12) * 0.1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return (torch.einsum("bsi,eoi->bseo", hidden, self.weight)).tanh().sum(2)


def adapted(config: Any, seed: int = 0, groups: int = 0) -> nn.Module:
    own = (
        groups
        or {"conv", "biased"} & set(config.target_modules or ())
        or getattr(config, "target_parameters", None)
    )
    model = Convolutions(groups or 1) if own else tiny_model()
    torch.manual_seed(seed)
    return peft.get_peft_model(model, copy.deepcopy(config))


def merged(
    folder: Path, model: nn.Module, beta: float = 0.3, **options: object
) -> tuple[Trainer, dict, dict, dict]:
    before, after = Effective(), EffectiveAfter()
    trainer = train(
        folder,
        [before, SFACallback(beta, 1.0, **options), after],
        model=model,
        max_steps=3,
        learning_rate=3e-2,
    )
    return trainer, before.at[0], before.at[3], after.at[3]


FROM_BASE = {
    "LoRA": peft.LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR),
    "rsLoRA": peft.LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=LINEAR),
    "DoRA": peft.LoraConfig(r=2, lora_alpha=5, use_dora=True, target_modules=LINEAR),
    "DoRA, embedding": peft.LoraConfig(r=2, lora_alpha=5, use_dora=True, target_modules=["embed_tokens"]),
    "patterns": peft.LoraConfig(
        r=2, target_modules=LINEAR, rank_pattern={"q_proj": 4}, alpha_pattern={"down_proj": 12}
    ),
    "embedding": peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"]),
    "modules_to_save": peft.LoraConfig(r=2, target_modules=LINEAR, modules_to_save=["lm_head"]),
    "tokens": peft.LoraConfig(r=2, target_modules=LINEAR, trainable_token_indices=[1, 5, 7]),
    "MiCA": peft.LoraConfig(r=2, target_modules=LINEAR, init_lora_weights="mica"),
    "AdaLoRA": peft.AdaLoraConfig(init_r=3, total_step=100, target_modules=LINEAR),
    "IA3": peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "LoHa": peft.LoHaConfig(r=2, alpha=3, target_modules=LINEAR),
    "LoKr": peft.LoKrConfig(r=2, alpha=3, target_modules=LINEAR),
    "VeRA": peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "RandLoRA": peft.RandLoraConfig(r=2, target_modules=["q_proj"]),
    "MiSS": peft.MissConfig(r=2, target_modules=["q_proj"]),
    "SHiRA": peft.ShiraConfig(r=2, target_modules=LINEAR),
    "LN tuning": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "FourierFT": peft.FourierFTConfig(n_frequency=20, target_modules=LINEAR),
    "WaveFT": peft.WaveFTConfig(n_frequency=24, target_modules=["q_proj"]),
    "C3A": peft.C3AConfig(block_size=4, target_modules=["q_proj"]),
    "lora_bias": peft.LoraConfig(r=2, target_modules=["biased"], lora_bias=True, bias="lora_only"),
    "convolution": peft.LoraConfig(r=2, target_modules=["conv"]),
    "convolution, DoRA": peft.LoraConfig(r=2, target_modules=["conv"], use_dora=True),
    "experts": peft.LoraConfig(r=2, target_modules=[], target_parameters=["experts.weight"]),
    "HiRA": peft.HiraConfig(r=2, target_modules=LINEAR),
    "GraLoRA": peft.GraloraConfig(r=4, hybrid_r=2, gralora_k=2, target_modules=LINEAR),
}


@pytest.mark.parametrize("kind", FROM_BASE)
def test_from_the_base_the_weights_are_the_average(tmp_path: Path, kind: str) -> None:
    trainer, start, before, after = merged(tmp_path, adapted(FROM_BASE[kind]))
    assert error(before, start, after, 0.3) < 5e-6  # FourierFT computes in fp32
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    assert entry.get("sfa/lora_discarded", 0.0) == 0.0


FROM_ADAPTER = {
    "LoRA": peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, init_lora_weights=False),
    "rsLoRA": peft.LoraConfig(r=3, use_rslora=True, target_modules=LINEAR, init_lora_weights=False),
    "PiSSA": peft.LoraConfig(r=3, target_modules=LINEAR, init_lora_weights="pissa"),
    "OLoRA": peft.LoraConfig(r=3, target_modules=LINEAR, init_lora_weights="olora"),
    "embedding": peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False),
    "convolution": peft.LoraConfig(r=2, target_modules=["conv"], init_lora_weights=False),
    "experts": peft.LoraConfig(
        r=2, target_modules=[], target_parameters=["experts.weight"], init_lora_weights=False
    ),
}


def best(average: torch.Tensor, base: torch.Tensor, rank: int, kind: str) -> torch.Tensor:
    """The base plus the best approximation of the update, of that rank, by an SVD of the whole matrix."""
    update = average - base
    matrix = update if kind == "experts" else update.reshape(update.shape[0], -1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s[..., rank:] = 0
    return base + ((u * s[..., None, :]) @ vh).reshape(base.shape)


@pytest.mark.parametrize("kind", FROM_ADAPTER)
def test_from_an_adapter_the_update_is_the_best_of_its_rank(tmp_path: Path, kind: str) -> None:
    config, beta = FROM_ADAPTER[kind], 0.4
    model = adapted(config)
    base = {
        n.replace(".base_layer", "").removeprefix("base_model.model."): p.detach().double().clone()
        for n, p in model.named_parameters()
    }
    trainer, start, before, after = merged(tmp_path, model, beta)
    distance = max((before[n] - start[n]).norm() for n in start)
    energy = discarded = 0.0
    for name, theta_o in start.items():
        average = (1 - beta) * before[name] + beta * theta_o
        if before[name].equal(theta_o):
            continue
        right = best(average, base[name], config.r, kind)
        assert (after[name] - right).norm() < 1e-5 * distance
        discarded += float((average - right).square().sum())
        energy += float((average - base[name]).square().sum())
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    assert discarded > 0
    assert entry["sfa/lora_discarded"] == pytest.approx(discarded / energy, rel=1e-3)
    for key, held in (("sfa/drift_before", before), ("sfa/drift_after", after)):
        drift = sum(float((held[n] - start[n]).square().sum()) for n in start) ** 0.5
        assert entry[key] == pytest.approx(drift, rel=1e-4)


def test_dora_from_an_adapter_is_the_average_where_the_rank_holds_it(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=24, use_dora=True, target_modules=LINEAR, init_lora_weights=False)
    trainer, start, before, after = merged(tmp_path, adapted(config))
    assert error(before, start, after, 0.3) < 1e-5
    (entry,) = [entry for entry in trainer.state.log_history if "sfa/merge" in entry]
    drift = sum(float((after[n] - start[n]).square().sum()) for n in start) ** 0.5
    assert entry["sfa/drift_after"] == pytest.approx(drift, rel=1e-5)


def test_merges_of_lora_are_merges_of_whole_matrices_with_the_same_updates(tmp_path: Path) -> None:
    before, after = Effective(), EffectiveAfter()
    beta = 0.4
    callbacks = [before, SFACallback(beta, merge_every=2), after]
    train(tmp_path, callbacks, model=adapted(FROM_BASE["rsLoRA"]), max_steps=8, learning_rate=3e-2)
    whole = {name: value.clone() for name, value in before.at[0].items()}
    for step in range(1, 9):
        for name, theta_o in before.at[0].items():
            whole[name] += before.at[step][name] - after.at[step - 1][name]
            if step % 2 == 0:
                whole[name].lerp_(theta_o, beta)
    distance = max((whole[n] - before.at[0][n]).norm() for n in whole)
    assert all((whole[name] - after.at[8][name]).norm() < 2e-6 * distance for name in whole)


REFUSED = {
    "oft": peft.OFTConfig(oft_block_size=4, target_modules=LINEAR),
    "boft": peft.BOFTConfig(boft_block_size=4, target_modules=LINEAR),
    "vblora": peft.VBLoRAConfig(r=2, num_vectors=8, vector_length=4, target_modules=["q_proj"]),
    "delora": peft.DeloraConfig(r=2, target_modules=LINEAR),
    "BdLoraLinearVariant": peft.LoraConfig(
        r=4,
        target_modules=["q_proj"],
        use_bdlora=peft.tuners.lora.config.BdLoraConfig(nblocks=2, target_modules_bd_b=["q_proj"]),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_without_an_average_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    model = adapted(REFUSED[kind])
    with pytest.raises(ConfigError, match=f"lora: .*{kind}"):
        train(tmp_path, [SFACallback()], model=model)
    train(tmp_path, [SFACallback(lora="factors")], model=model, max_steps=1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"exclude": "lora_A"}, r"include: the patterns take .*lora_B\.default.weight without .*lora_A"),
        ({"rule": "slerp"}, "rule: 'slerp' beside adapters"),
        ({"lora": "exactly"}, "lora: unknown value 'exactly'"),
    ],
)
def test_options_that_do_not_go_with_updates(tmp_path: Path, options: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        train(tmp_path, [SFACallback(**options)], model=adapted(FROM_BASE["LoRA"]))


def test_a_non_zero_product_of_many_factors_is_refused(tmp_path: Path) -> None:
    model = adapted(peft.LoHaConfig(r=2, target_modules=LINEAR, init_weights=False))
    with pytest.raises(ConfigError, match=r"anchor: the loha update of .* is not zero at the anchor"):
        train(tmp_path, [SFACallback()], model=model)


@pytest.mark.parametrize(("policy", "factor"), [("keep", 1.0), ("reset", 0.0), ("scale", 0.75)])
def test_moments_of_factors_follow_the_option(tmp_path: Path, policy: str, factor: float) -> None:
    moments: list[list[torch.Tensor]] = []

    class Moments(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs) -> None:
            moments.append([each["exp_avg"].clone() for each in optimizer.state.values()])

    class MomentsAfter(Moments):
        pass

    callbacks = [Moments(), SFACallback(0.25, 1.0, optimizer_state=policy), MomentsAfter()]
    train(tmp_path, callbacks, model=adapted(FROM_ADAPTER["PiSSA"]), max_steps=2)
    before, after = moments[-2:]
    assert all(new.equal(old * factor) for old, new in zip(before, after, strict=True))


def test_16_bit_factors_are_rounded_stochastically_and_alike(tmp_path: Path) -> None:
    first, second = (adapted(FROM_ADAPTER["PiSSA"]).bfloat16() for _ in range(2))
    for model in (first, second):
        train(tmp_path, [SFACallback(0.3, 0.5)], model=model, max_steps=4)
    assert all(w.equal(weights(second)[name]) for name, w in weights(first).items())
