"""A task's held-out rows as token ids: cut where training cuts them, never longer than the model reads."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.likelihood import Continuation
from sfa_hf.evaluation.live import LiveModel
from sfa_hf.tasks.encoding import Encoding, asked_ids, continued_ids, cut_left
from sfa_hf.tasks.task import Row


def generation_prompts(
    task: str, rows: Sequence[Row], live: LiveModel, encoding: Encoding, max_new_tokens: int
) -> tuple[list[list[int]], int]:
    """Prompts for :func:`greedy_answers`, and how many of them lost tokens at their beginning.

    A prompt may fill ``encoding.max_length``, as long as the model has positions for the answer too.

    Raises:
        ConfigError: ``max_new_tokens`` alone is more than the model reads.
    """
    room = encoding.max_length
    if live.context is not None:
        room = min(room, live.context - max_new_tokens)
    if room < 1:
        problem = f"is {max_new_tokens}, and the model reads {live.context} tokens"
        raise ConfigError(f"{task}.scoring.max_new_tokens", problem, f"fewer than {live.context}")
    whole = [prompt or _start(task, live.tokenizer) for prompt in asked_ids(rows, live.tokenizer, encoding)]
    prompts = [cut_left(prompt, room, live.tokenizer.bos_token_id) for prompt in whole]
    return prompts, sum(len(kept) < len(all_) for kept, all_ in zip(prompts, whole, strict=True))


def continuations(
    task: str, rows: Sequence[Row], targets: Sequence[Sequence[str]], live: LiveModel, encoding: Encoding
) -> tuple[list[Continuation], int]:
    """Each row's prompt with each of its targets, in order, and how many prompts lost their beginning.

    Targets are tokenised as in training, without the EOS token that ends them there.

    Raises:
        ConfigError: a target is longer than the model reads; it is never cut.
    """
    bos, limit = live.tokenizer.bos_token_id, min(encoding.max_length, live.context or encoding.max_length)
    found: list[Continuation] = []
    cut = 0
    continued = continued_ids(rows, targets, live.tokenizer, encoding)
    for row, pairs in zip(rows, continued, strict=True):
        longest = max(len(target) for _, target in pairs)
        if live.context is not None and longest >= live.context:
            problem = f"row {row.index} has a target of {longest} tokens, and the model reads {live.context}"
            raise ConfigError(f"{task}.heldout", problem, "shorter rows, e.g. by max_chars")
        # all of a row's choices follow the same prompt, so that they compete on equal terms
        room = max(limit - longest, 1)
        cut += any(len(prompt) > room for prompt, _ in pairs)
        for prompt, target in pairs:
            kept = cut_left(prompt or _start(task, live.tokenizer), room, bos)
            found.append(Continuation(kept, target))
    return found, cut


def _start(task: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS, else EOS, in place of an empty prompt: the first token needs something before it."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    found = [each for each in known if each is not None]
    if not found:
        raise ConfigError(
            f"{task}.prompt", "is empty, and the tokenizer has no BOS or EOS token", "some text"
        )
    return found[:1]
