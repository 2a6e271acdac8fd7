"""Tiny random models, a tokenizer and tasks for the tests of evaluation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from sfa_hf.tasks import Row, Task, load_task

TEXT = [
    "How many apples are left if five of seven are eaten?",
    "Is this clause unfair? Yes or No. The provider may terminate at any time.",
    "answer: 12, answer: 7, answer: 30; return the sum of all numbers\n",
]
FAMILIES = ("pythia", "llama", "gpt2")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with an EOS token and, like Pythia's and Llama's, without a pad token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<eos>"])
    backend.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def model(family: str = "llama", **changes: Any) -> PreTrainedModel:
    """Random weights, large enough that answers depend on the prompt."""
    shape: dict[str, Any] = {"vocab_size": len(tokenizer()), "bos_token_id": None, "eos_token_id": 0}
    shape |= {"initializer_range": 0.3} | changes
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=256, **shape)).eval()
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**{"max_position_embeddings": 256, **wide, **shape})).eval()
    return GPTNeoXForCausalLM(GPTNeoXConfig(max_position_embeddings=256, **wide, **shape)).eval()


def rows(count: int = 23) -> list[Row]:
    """Prompts of very different lengths."""
    words = " ".join(TEXT).split()
    choices = (" Yes", " No", " perhaps unfair")
    return [
        Row(
            prompt=" ".join(words[i % 5 : i % 5 + 1 + (7 * i) % 19]),
            target=choices[i % 3],
            choices=choices,
            index=i,
        )
        for i in range(count)
    ]


def task(folder: Path, scoring: dict[str, Any], *, count: int = 23) -> Task:
    """A task over :func:`rows`, read from a file as users' tasks are."""
    data = folder / "rows.jsonl"
    lines = [{"prompt": row.prompt, "target": row.target, "choices": row.choices} for row in rows(count)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    source = [{"path": data.name}]
    spec = {
        "name": "small",
        "prompt": "{{ prompt }}",
        "target": "{{ target }}",
        "choices": "{{ choices }}",
        "train": source,
        "heldout": source,
        "scoring": scoring,
    }
    return load_task(spec, search=[], data_dir=folder)


SCORINGS: dict[str, dict[str, Any]] = {
    "generate": {"kind": "generate", "max_new_tokens": 6, "stop": ["e"]},
    "choice": {"kind": "choice", "normalise": "tokens"},
    "perplexity": {"kind": "perplexity"},
}
