"""The model as it stands, on whatever engine trains it."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedTokenizerBase

from sfa_hf.engines.sharded import is_sharded
from sfa_hf.tasks.encoding import collator


class LiveModel:
    """A causal language model and its tokenizer, as evaluation sees them.

    Attributes:
        model: without a data-parallel wrapper.
        tokenizer: its tokenizer.
        sharded: whether its weights are spread over the processes (ZeRO-3, FSDP2), so that every forward pass
            is a collective that all of them must make.
        end_ids: tokens that end an answer: the tokenizer's EOS, which ends targets in training, and the
            checkpoint's own.
        device: where inputs go.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = extract_model_from_parallel(model)
        self.tokenizer = tokenizer
        parameters = list(self.model.parameters())
        self.sharded = any(map(is_sharded, parameters))
        own = self.model.generation_config.eos_token_id
        ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
        self.end_ids: list[int] = sorted({each for each in ends if each is not None})
        # sharded parameters may rest on the host between forward passes, away from where the model computes
        self.device: torch.device = PartialState().device if self.sharded else parameters[0].device

    @property
    def context(self) -> int | None:
        """Most tokens that the model has positions for; None if its config does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def pad_id(self) -> int:
        """The token that training pads with; the attention mask hides it."""
        return collator(self.tokenizer).pad_token_id
