"""Greedy answers to a batch of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from sfa_hf.evaluation.answers import cut_at
from sfa_hf.evaluation.batching import padded
from sfa_hf.evaluation.live import LiveModel

#: From the number of columns before the first generated token to what picks the tokens.
Choose = Callable[[int], LogitsProcessor]


def greedy_answers(
    live: LiveModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[str],
    choose: Choose | None = None,
) -> list[str]:
    """The model's greedy continuations, one a prompt, each as if the prompt were alone.

    Args:
        live: the model.
        prompts: token ids; padded on the left, where attention mask and position ids leave the padding out.
        max_new_tokens: an answer has at most so many tokens.
        stop: an answer ends before the first of these strings.
        choose: makes the token it picks the likeliest one, for answers that are not greedy.
    """
    ids, mask = padded(prompts, live.pad_id, "left", live.device)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=live.end_ids or None,
        pad_token_id=live.pad_id,
    )
    prompt_length = ids.shape[1]
    criteria = StoppingCriteriaList([StopBefore(stop, live.tokenizer, prompt_length)] if stop else [])
    generated = live.model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=config,
        stopping_criteria=criteria,
        logits_processor=LogitsProcessorList([choose(prompt_length)] if choose else []),
        synced_gpus=live.sharded,
    )
    answers = []
    for prompt, row in zip(prompts, generated[:, prompt_length:].tolist(), strict=True):
        # up to the first end token or stop string: what ``generate`` put behind it is cut off
        tokens = list(takewhile(lambda token: token not in live.end_ids, row))
        answers.append(cut_at(continuation(live.tokenizer, prompt, tokens), stop))
    return answers


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Text of ``answer`` where it stands: some tokenizers drop a space from the first token they decode."""
    before = decode(tokenizer, prompt[-1:])
    whole = decode(tokenizer, [*prompt[-1:], *answer])
    # a prompt that ends inside a character: the answer's bytes complete it, and stand for themselves
    return whole.removeprefix(before) if whole.startswith(before) else decode(tokenizer, answer)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of generated tokens, spaces as they are, special tokens left out."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


class StopBefore(StoppingCriteria):
    """A row is finished when its newest text holds one of the stop strings."""

    def __init__(self, stop: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_length: int) -> None:
        self._stop = tuple(stop)
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        # every token holds at least a byte; two more for the token in which the string begins and for the
        # space that some tokenizers drop from the first token they decode
        self._tail = max(len(each.encode()) for each in stop) + 2

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # noqa: ARG002
        newest = input_ids[:, self._prompt_length :][:, -self._tail :].tolist()
        texts = [decode(self._tokenizer, row) for row in newest]
        done = [any(each in text for each in self._stop) for text in texts]
        return torch.tensor(done, device=input_ids.device)
