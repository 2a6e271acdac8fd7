"""Small models of three families for demos and tests without a download; each is built once, in a minute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sfa_hf.models import cache
from sfa_hf.models.pretraining import pretrain, reproducible
from sfa_hf.models.text import documents, task_words
from sfa_hf.models.tokenizer import train_tokenizer

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights of a built-in model; part of the cache key.

    Attributes:
        family: "pythia", "llama" or "qwen".
        hidden: width of the residual stream.
        layers: number of blocks.
        heads: number of attention heads.
        vocabulary: number of tokens.
        positions: longest sequence in the config, in tokens.
        documents: number of generated training texts.
        steps: optimizer steps of pre-training.
        batch: windows per step.
        window: tokens per window.
        learning_rate: peak of the learning rate.
        seed: seed of texts, initial weights and batches.
    """

    family: str
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    vocabulary: int = 1024
    positions: int = 512
    documents: int = 40_000
    steps: int = 600
    batch: int = 32
    window: int = 48
    learning_rate: float = 3e-3
    seed: int = 0


BUILTINS: dict[str, Recipe] = {f"builtin:{family}": Recipe(family) for family in ("pythia", "llama", "qwen")}


def builtin_folder(recipe: Recipe, cache_dir: Path | None = None) -> Path:
    """Return the folder of the recipe's model; build it if the cache does not hold it complete."""
    return cache.folder(asdict(recipe), lambda target: _build(recipe, target), cache_dir)


def _build(recipe: Recipe, target: Path) -> None:
    _logger.info("building the built-in model %s once (about a minute)", recipe.family)
    texts = documents(recipe.documents, recipe.seed)
    words = texts + task_words(recipe.documents // 4, recipe.seed)
    tokenizer = train_tokenizer(words, recipe.family, recipe.vocabulary, recipe.positions)
    with reproducible(recipe.seed):
        model = _MODELS[recipe.family](recipe, len(tokenizer), tokenizer)
        pretrain(model, tokenizer, texts, recipe)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _pythia(recipe: Recipe, vocabulary: int, tokenizer: Any) -> PreTrainedModel:
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.hidden,
        max_position_embeddings=recipe.positions,
        initializer_range=_spread(recipe),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPTNeoXForCausalLM(config)


def _gated(recipe: Recipe, vocabulary: int, tokenizer: Any) -> dict[str, Any]:
    """Config of Llama and Qwen: a gated MLP of about GPT-NeoX's size, two heads per key head."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": recipe.hidden,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads // 2,
        "intermediate_size": 8 * recipe.hidden // 3 // 8 * 8,
        "max_position_embeddings": recipe.positions,
        "initializer_range": _spread(recipe),
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": torch.float32,
    }


def _spread(recipe: Recipe) -> float:
    """Standard deviation of initial weights, 1/sqrt(width); the default 0.02 is for widths of thousands."""
    return float(recipe.hidden**-0.5)


_MODELS: dict[str, Callable[[Recipe, int, Any], PreTrainedModel]] = {
    "pythia": _pythia,
    "llama": lambda *given: LlamaForCausalLM(LlamaConfig(**_gated(*given))),
    "qwen": lambda *given: Qwen2ForCausalLM(Qwen2Config(**_gated(*given))),
}
