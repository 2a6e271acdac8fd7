"""From rows to token ids; the same ids in training and in evaluation.

Prompt and target are tokenised apart and joined, so that the boundary between them is the same whatever
follows the prompt. What the tokenizer puts before a text (a BOS token) stays before the prompt; what it would
put behind it (an EOS token) does not, because the text goes on. A target ends with the EOS token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from sfa_hf.config.paths import UserPath
from sfa_hf.errors import ConfigError
from sfa_hf.tasks.task import Row

#: Label of a token that the loss leaves out, as in ``torch.nn.functional.cross_entropy``.
IGNORED = -100


class Encoding(BaseModel):
    """How rows become token ids.

    Attributes:
        max_length: most tokens of prompt and target together.
        loss_on: "target", or "all" to learn the prompt too.
        chat_template: wrap the prompt as a user's turn with the tokenizer's chat template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_length: int = Field(default=1024, gt=1)
    loss_on: Literal["target", "all"] = "target"
    chat_template: bool = False


class DataOptions(Encoding):
    """How rows become tokens, and where their files lie.

    Attributes:
        dir: folder that the tasks' relative file paths start from; relative to the current folder.
    """

    dir: UserPath = "."


@dataclass(frozen=True)
class EncodingReport:
    """What did not fit.

    Attributes:
        rows: rows given.
        prompts_cut: rows whose prompt lost tokens at its beginning.
        tokens_cut: how many tokens they lost together.
        rows_dropped: rows left out because the target alone fills ``max_length``.
    """

    rows: int
    prompts_cut: int = 0
    tokens_cut: int = 0
    rows_dropped: int = 0

    def summary(self) -> str:
        """One line for the log."""
        cut = f"{self.prompts_cut} prompts cut from the left by {self.tokens_cut} tokens in all"
        return f"{self.rows} rows: {cut}, {self.rows_dropped} rows dropped for too long a target"


def encode(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, encoding: Encoding
) -> tuple[datasets.Dataset, EncodingReport]:
    """Token ids and labels of training rows.

    A target is never cut: a prompt that is too long loses tokens at its beginning (its BOS token stays), and
    a row whose target leaves no room for a prompt is dropped.

    Returns:
        A dataset with columns ``input_ids`` and ``labels`` (equal lengths, at most ``encoding.max_length``;
        labels are -100 on the prompt unless ``loss_on`` is "all"), and what was cut or dropped.

    Raises:
        ConfigError: no row fits, or a chat template is asked for and the tokenizer has none.
    """
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    cuts: list[int] = []
    prompts = prompt_ids([row.prompt for row in rows], tokenizer, encoding)
    targets = target_ids([row.target for row in rows], tokenizer)
    for prompt, target in zip(prompts, targets, strict=True):
        room = encoding.max_length - len(target)
        if room < 1:
            continue
        kept = cut_left(prompt, room, tokenizer.bos_token_id)
        cuts.append(len(prompt) - len(kept))
        columns["input_ids"].append(kept + target)
        columns["labels"].append((kept if encoding.loss_on == "all" else [IGNORED] * len(kept)) + target)
    if not cuts:
        problem = f"is {encoding.max_length}: every one of {len(rows)} targets is too long"
        raise ConfigError("data.max_length", problem, f"more than {min(map(len, targets), default=1)}")
    report = EncodingReport(len(rows), sum(cut > 0 for cut in cuts), sum(cuts), len(rows) - len(cuts))
    return datasets.Dataset.from_dict(columns), report


def rows_hash(rows: datasets.Dataset) -> str:
    """SHA-256 of encoded rows, in their order: the same for the same tokens and labels."""
    digest = hashlib.sha256()
    table = rows.with_format("arrow")[:]
    for name in sorted(table.column_names):
        column = table.column(name).combine_chunks()
        digest.update(name.encode())
        for part in (column.value_lengths(), column.flatten()):
            digest.update(part.to_numpy(zero_copy_only=False).astype("int64"))
    return digest.hexdigest()


def prompt_ids(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, encoding: Encoding
) -> list[list[int]]:
    """Token ids of prompts, whole: BOS as the tokenizer adds it, no EOS.

    Raises:
        ConfigError: ``encoding.chat_template`` and the tokenizer has none.
    """
    if not prompts:
        return []
    if encoding.chat_template:
        # the template's text holds its own special tokens, BOS included
        texts = [render_chat(prompt, tokenizer) for prompt in prompts]
        return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    behind = _tokens_behind(tokenizer)
    whole = tokenizer(list(prompts), verbose=False)["input_ids"]
    return [ids[: len(ids) - behind] for ids in whole]


def target_ids(
    targets: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, eos: bool = True
) -> list[list[int]]:
    """Token ids of targets or choices that continue a prompt: nothing before, EOS behind if there is one."""
    if not targets:
        return []
    end = [tokenizer.eos_token_id] if eos and tokenizer.eos_token_id is not None else []
    return [
        ids + end for ids in tokenizer(list(targets), add_special_tokens=False, verbose=False)["input_ids"]
    ]


def render_chat(prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt as a user's turn, up to where the assistant's answer begins."""
    if not tokenizer.chat_template:
        name = tokenizer.name_or_path or type(tokenizer).__name__
        raise ConfigError("data.chat_template", f"is true and the tokenizer of {name} has none", "false")
    turn = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def cut_left(ids: list[int], room: int, bos: int | None) -> list[int]:
    """The last ``room`` tokens; a BOS token at the beginning stays there."""
    if len(ids) <= room:
        return ids
    if bos is not None and ids[0] == bos:
        return ids[:1] + ids[len(ids) - room + 1 :]
    return ids[len(ids) - room :]


def _tokens_behind(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the tokenizer puts behind a text."""
    text, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    starts = range(len(whole) - len(text) + 1)
    return min(len(whole) - start - len(text) for start in starts if whole[start : start + len(text)] == text)


@dataclass(frozen=True)
class RightPad:
    """Collator: pads a batch on the right to its longest row, whatever side the tokenizer would pad on.

    Padding is told by ``attention_mask`` and by labels of -100, never by the pad token's id, so that a
    tokenizer may pad with its EOS token without the true EOS being lost from the loss.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Tensors ``input_ids``, ``labels``, ``attention_mask`` of shape (batch, longest row)."""
        ids, labels = ([torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels"))
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], batch_first=True),
        }


def collator(tokenizer: PreTrainedTokenizerBase) -> RightPad:
    """A collator that pads with the tokenizer's pad token, else EOS, else 0: the mask hides the id."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return RightPad(next((each for each in known if each is not None), 0))
