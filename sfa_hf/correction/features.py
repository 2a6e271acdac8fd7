"""Features of a model, and their distance from those of another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sfa_hf.distributed.processes import rank, world_size
from sfa_hf.evaluation.untouched import untouched
from sfa_hf.tasks import collator


@dataclass(frozen=True)
class Mismatch:
    r"""Distance of the features h of a model from the features h_t of a teacher, on the same tokens.

    Attributes:
        mean: mean over tokens of ||h - h_t||_2.
        relative: sum of ||h - h_t||_2 divided by the sum of ||h_t||_2.
        tokens: number of tokens.
    """

    mean: float
    relative: float
    tokens: int


def features(model: nn.Module, batch: dict[str, Tensor], layer: int = -1) -> Tensor:
    """Return hidden states of shape [batch, tokens, width], from one call of the whole model.

    Args:
        model: a model, wrapped by a training engine or not, linearised or not.
        batch: ``input_ids`` and ``attention_mask``, each of shape [batch, tokens].
        layer: position in ``hidden_states``; 0 is the embedding, -1 the input of the output head.
    """
    # logits of one position only: nobody needs them at every position
    output = model(**batch, use_cache=False, output_hidden_states=True, logits_to_keep=1)
    return output.hidden_states[layer]


def inputs_of(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the inputs of a batch, without its labels."""
    ids = batch["input_ids"].to(device)
    mask = batch.get("attention_mask")
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask.to(device)}


def feature_mismatch(
    model: nn.Module,
    teacher: nn.Module,
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    layer: int = -1,
    batch_size: int = 16,
) -> Mismatch:
    """Measure the mean distance of the features of ``model`` from those of the teacher, without padding.

    Call it on every process. Each takes its share of the batches, and all get the same result.

    Args:
        model: the model, whole on each process.
        teacher: the model to compare with, on the same device.
        rows: rows with ``input_ids``, e.g. from :func:`sfa_hf.tasks.encode`.
        tokenizer: pads the rows.
        layer: position in ``hidden_states``; 0 is the embedding, -1 the input of the output head.
        batch_size: rows per forward pass, > 0.
    """
    collate: Callable[..., dict[str, Tensor]] = collator(tokenizer)
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with untouched(model), untouched(teacher):
        for start in range(rank() * batch_size, len(rows), world_size() * batch_size):
            part = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
            inputs = inputs_of(collate(part), device)
            sums += _distances(model, teacher, inputs, layer)
    if world_size() > 1:
        dist.all_reduce(sums)
    distance, norm, tokens = sums.tolist()
    return Mismatch(distance / max(tokens, 1), distance / norm if norm else 0.0, int(tokens))


def _distances(model: nn.Module, teacher: nn.Module, inputs: dict[str, Tensor], layer: int) -> Tensor:
    """Return the sum of distances, the sum of the teacher's norms, and the number of tokens."""
    real = inputs["attention_mask"].bool()
    own, right = (features(each, inputs, layer)[real].double() for each in (model, teacher))
    tokens = torch.tensor(len(right), dtype=torch.float64, device=right.device)
    return torch.stack([(own - right).norm(dim=-1).sum(), right.norm(dim=-1).sum(), tokens])
