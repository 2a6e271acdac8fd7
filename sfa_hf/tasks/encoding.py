"""From rows to token ids; the same ids in training and in evaluation.

Prompt and target are tokenised apart and joined, so that the boundary between them is the same whatever
follows the prompt. What the tokenizer puts before a text (a BOS token) stays before the prompt; what it would
put behind it (an EOS token) does not, because the text goes on. A target ends with the EOS token.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from sfa_hf.config.paths import UserPath
from sfa_hf.errors import ConfigError
from sfa_hf.tasks.chat import Chat
from sfa_hf.tasks.conversations import Message
from sfa_hf.tasks.task import Row

#: Label of a token that the loss leaves out, as in ``torch.nn.functional.cross_entropy``.
IGNORED = -100


class Encoding(BaseModel):
    """How rows become token ids.

    Attributes:
        max_length: most tokens of prompt and target together.
        loss_on: what is learned: "target", of a conversation its last answer, which is also called "last";
            "assistant" for all answers of a conversation; "all" for prompts and other turns too.
        chat_template: make a conversation of prompt and target, for the tokenizer's chat template.
        date: what a chat template prints as today's date, as YYYY-MM-DD; the same in every launch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_length: int = Field(default=1024, gt=1)
    loss_on: Literal["target", "last", "assistant", "all"] = "target"
    chat_template: bool = False
    date: str = "2025-01-01"

    @field_validator("date")
    @classmethod
    def _date_is_one(cls, value: str) -> str:
        datetime.date.fromisoformat(value)
        return value


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
    learned = _learned(rows, tokenizer, encoding)
    for ids, labels, start in learned:
        room = encoding.max_length - (len(ids) - start)
        if room < 1:
            continue
        cut = max(0, start - room)
        cuts.append(cut)
        columns["input_ids"].append(_without(ids, cut, tokenizer.bos_token_id == ids[0]))
        columns["labels"].append(_without(labels, cut, tokenizer.bos_token_id == ids[0]))
    if not cuts:
        problem = f"is {encoding.max_length}: every one of {len(rows)} targets is too long"
        shortest = min((len(ids) - start for ids, _, start in learned), default=1)
        raise ConfigError("data.max_length", problem, f"more than {shortest}")
    report = EncodingReport(len(rows), sum(cut > 0 for cut in cuts), sum(cuts), len(rows) - len(cuts))
    return datasets.Dataset.from_dict(columns), report


def _learned(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, encoding: Encoding
) -> list[tuple[list[int], list[int], int]]:
    """Of each row the token ids, their labels, and where its target, or last answer, begins."""
    everything = encoding.loss_on == "all"
    plain = [row for row in rows if not as_conversation(row, encoding)]
    prompts = iter(prompt_ids([row.prompt for row in plain], tokenizer))
    targets = iter(target_ids([row.target for row in plain], tokenizer))
    chat = Chat(tokenizer, encoding.date) if len(plain) < len(rows) else None
    found = []
    for row in rows:
        messages = as_conversation(row, encoding)
        if chat is None or not messages:
            prompt = next(prompts)
            ids, start = prompt + next(targets), len(prompt)
            spans = [(start, len(ids))]
        else:
            turns = chat.turns(messages, every=encoding.loss_on == "assistant")
            ids, spans, start = turns.ids, turns.answers, turns.answers[-1][0]
        labels = list(ids) if everything else [IGNORED] * len(ids)
        for first, last in spans:
            labels[first:last] = ids[first:last]
        found.append((ids, labels, start))
    return found


def as_conversation(row: Row, encoding: Encoding) -> tuple[Message, ...]:
    """What a chat template writes of a row; () where the row stands without one.

    No space separates an answer from a prompt there: " Yes" is "Yes".
    """
    if row.messages or not encoding.chat_template:
        return row.messages
    return ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": spoken(row.target)})


def spoken(answer: str) -> str:
    """An answer without the one space that separates it from a prompt."""
    return answer[1:] if answer.startswith(" ") and not answer.startswith("  ") else answer


def _without(values: list[int], cut: int, keep_first: bool) -> list[int]:
    """Without ``cut`` of the first values; the very first may stay, and the next goes."""
    return values[:1] + values[cut + 1 :] if keep_first and cut else values[cut:]


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


def asked_ids(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> list[list[int]]:
    """Token ids of what a model is given of each row.

    Raises:
        ConfigError: a row is a conversation, and the tokenizer has no chat template or the template fails.
    """
    talks = [as_conversation(row, encoding) for row in rows]
    plain = iter(
        prompt_ids([row.prompt for row, talk in zip(rows, talks, strict=True) if not talk], tokenizer)
    )
    chat = Chat(tokenizer, encoding.date) if any(talks) else None
    return [chat.asked(talk[:-1]) if chat and talk else next(plain) for talk in talks]


def continued_ids(
    rows: Sequence[Row],
    targets: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    encoding: Encoding,
) -> list[list[tuple[list[int], list[int]]]]:
    """Token ids of what is given of each row and of each of its targets, without what ends a target."""
    talks = [as_conversation(row, encoding) for row in rows]
    chat = Chat(tokenizer, encoding.date) if any(talks) else None
    plain = [row.prompt for row, talk in zip(rows, talks, strict=True) if not talk]
    prompts = iter(prompt_ids(plain, tokenizer))
    found = []
    for talk, texts in zip(talks, targets, strict=True):
        if chat and talk:
            found.append(chat.answered(talk[:-1], list(map(spoken, texts))))
        else:
            prompt = next(prompts)
            found.append([(prompt, target) for target in target_ids(texts, tokenizer, eos=False)])
    return found


def end_ids(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> list[int]:
    """The tokens that end an answer of these rows beside the EOS token: the template's own end of turn."""
    talks = any(as_conversation(row, encoding) for row in rows)
    return Chat(tokenizer, encoding.date).ends if talks else []


def prompt_ids(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of prompts, whole: BOS as the tokenizer adds it, no EOS."""
    if not prompts:
        return []
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
