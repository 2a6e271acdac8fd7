"""Short pre-training, which gives a built-in model something to forget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

if TYPE_CHECKING:
    from sfa_hf.models.builtin import Recipe

#: Sums are split among threads, so the number of threads is part of the result. One, because several
#: processes may share the cores, and a second thread gains little for matrices this small.
_THREADS = 1


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and fix its thread count; restore both afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def pretrain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: Recipe
) -> None:
    """Train on the next tokens of ``texts`` with AdamW, a short warm-up and a cosine decay to a tenth."""
    encoded = tokenizer(list(texts), verbose=False)["input_ids"]
    # all texts as one row of tokens, an EOS behind each
    stream = torch.tensor([token for ids in encoded for token in (*ids, tokenizer.eos_token_id)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    model.train()
    # None: tqdm shows the bar only on a terminal.
    for _ in tqdm(range(recipe.steps), desc="pre-training", unit="step", leave=False, disable=None):
        starts = torch.randint(len(stream) - recipe.window, (recipe.batch, 1))
        ids = stream[starts + torch.arange(recipe.window)]
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, steps // 20)
    cosine = 0.55 + 0.45 * math.cos(math.pi * min(1.0, step / max(1, steps)))
    return min(1.0, (step + 1) / warm_up) * cosine
