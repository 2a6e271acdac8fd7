"""A tokenizer's chat template: conversations as token ids, and which of them the assistant says.

A conversation is rendered as a whole and tokenised as a whole, so that training reads what the template says,
token by token. Where an answer stands is told by the template's generation mask, else by rendering the
conversation up to the answer and with it. An answer ends with the assistant's own end of turn.
"""

from __future__ import annotations

import datetime
import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from sfa_hf.errors import ConfigError
from sfa_hf.tasks.conversations import Message
from sfa_hf.tasks.render_process import render_chat_apart
from sfa_hf.tasks.templates import MOST_CHARACTERS

logger = logging.getLogger(__name__)

KEY = "data.chat_template"
_DATES = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_MOST_OWN = 2**20
"""Characters that a template may write beside the messages."""
_MASKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Turns:
    """A conversation as token ids.

    Attributes:
        ids: of all of it.
        answers: start and end, in ``ids``, of what is learned of each of the assistant's turns.
    """

    ids: list[int]
    answers: list[tuple[int, int]]


class Chat:
    """A tokenizer's chat template.

    Args:
        tokenizer: with a chat template.
        date: what the template takes for today, as YYYY-MM-DD.

    Raises:
        ConfigError: the tokenizer has no template, one that is too long, or several and no default.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: str) -> None:
        name = tokenizer.name_or_path or type(tokenizer).__name__
        if not tokenizer.chat_template:
            raise ConfigError(KEY, f"the tokenizer of {name} has none", "false, and no messages in the tasks")
        if not tokenizer.is_fast:
            raise ConfigError(KEY, f"the tokenizer of {name} does not tell where tokens stand", "a fast one")
        try:
            template = tokenizer.get_chat_template()
        except ValueError as err:
            names = ", ".join(sorted(tokenizer.chat_template))
            problem = f"the tokenizer of {name} has several templates ({names}) and no default"
            raise ConfigError(
                KEY, problem, "a tokenizer with one, or with one that is named default"
            ) from err
        if len(template) > MOST_CHARACTERS:
            problem = f"the template of {name} has {len(template)} characters"
            raise ConfigError(KEY, problem, f"a tokenizer whose template has at most {MOST_CHARACTERS}")
        self._tokenizer = tokenizer
        self._template = _DATES.sub(
            lambda call: repr(f"{datetime.date.fromisoformat(date):{call[2]}}"), template
        )
        if self._template != template:
            _say_date(name, date)

    def text(self, messages: Sequence[Message], *, asks: bool) -> str:
        """The conversation as the template writes it; with ``asks``, up to where the next answer begins.

        Raises:
            ConfigError: the template fails on it, with its own words, or takes too much time or memory.
        """
        return self._rendered(messages, asks=asks)[0]

    def _rendered(
        self, messages: Sequence[Message], *, asks: bool, masked: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and what of it the generation mask marks."""
        given = [{key: each for key, each in one.items() if each is not None} for one in messages]
        arguments = {
            "chat_template": self._template,
            "conversations": [given],
            "add_generation_prompt": asks,
            "return_assistant_tokens_mask": masked,
            **self._tokenizer.special_tokens_map,
        }
        try:
            text, marked = render_chat_apart(arguments)
        except ValueError as err:
            roles = ", ".join(each["role"] for each in messages)
            problem = f"the tokenizer's template fails on a conversation of {roles}: {err}"
            raise ConfigError(KEY, problem, "conversations that it takes, or another tokenizer") from err
        own = len(text) - sum(len(str(each)) for each in given)
        if own > _MOST_OWN:
            problem = f"the tokenizer's template writes {own} characters of its own"
            raise ConfigError(KEY, problem, f"another tokenizer: at most {_MOST_OWN}")
        return text, marked

    def turns(self, messages: Sequence[Message], *, every: bool) -> Turns:
        """Token ids of a conversation that ends with an answer.

        Args:
            messages: the conversation.
            every: tell all answers, not the last alone.

        Raises:
            ConfigError: the template fails, or writes earlier turns in another way once others follow.
        """
        if _MASKS.search(self._template):
            return self._masked(messages, every=every)
        text = self.text(messages, asks=False)
        places = [place for place, each in enumerate(messages) if each["role"] == "assistant"]
        spans = [self._span(text, messages, place) for place in (places if every else places[-1:])]
        ids, offsets = self._tokens(text)
        answers = [_covered(offsets, *span) for span in spans]
        if not self.ends and self._tokenizer.eos_token_id is not None:  # nothing of the template ends a turn
            answers[-1] = (answers[-1][0], len(ids) + 1)
            ids = [*ids, self._tokenizer.eos_token_id]
        return Turns(ids, answers)

    def asked(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the answer begins: what a model is given to go on from."""
        return self._tokens(self.text(messages, asks=True))[0]

    def answered(
        self, messages: Sequence[Message], answers: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Token ids up to an answer, and of the answer without its end of turn; for each of ``answers``."""
        asked = self.text(messages, asks=True)
        found = []
        for answer in answers:
            text = self.text([*messages, {"role": "assistant", "content": answer}], asks=False)
            end = text.rfind(answer) + len(answer)
            if not text.startswith(asked) or end <= len(asked):
                text, end = asked + answer, len(asked) + len(answer)
            ids, offsets = self._tokens(text[:end])
            start, _ = _covered(offsets, len(asked), end)
            found.append((ids[:start], ids[start:]))
        return found

    @functools.cached_property
    def ends(self) -> list[int]:
        """The special token that ends the assistant's turn; [] where the template has none."""
        tail = self._tail
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.added_tokens_decoder}
        return [each for each in self._tokens(tail)[0] if each in special][:1]

    @functools.cached_property
    def _tail(self) -> str:
        """What stands behind an answer."""
        answer = "Sfa answers."
        turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": answer}]
        return self.text(turns, asks=False).rpartition(answer)[2]

    def _span(self, text: str, messages: Sequence[Message], place: int) -> tuple[int, int]:
        """Where in the text the answer at ``place`` stands, with its end of turn."""
        asked = self.text(messages[:place], asks=True)
        whole = text if place == len(messages) - 1 else self.text(messages[: place + 1], asks=False)
        whole = whole.rstrip() if self.ends else whole
        if not (text.startswith(whole) and whole.startswith(asked.rstrip(" "))):
            problem = f"the tokenizer's template writes turn {place + 1} in another way once others follow it"
            raise ConfigError("data.loss_on", problem, "last")
        if (
            messages[place].get("tool_calls")
            and not whole[len(asked) :].removesuffix(self._tail.rstrip()).strip()
        ):
            _say_no_calls(self._tokenizer.name_or_path)
        return min(len(asked), len(whole)), len(whole)

    def _masked(self, messages: Sequence[Message], *, every: bool) -> Turns:
        text, marked = self._rendered(messages, asks=False, masked=True)
        ids, offsets = self._tokens(text)
        inside = bytearray(len(text) + 1)
        for start, end in marked:
            inside[start:end] = b"\1" * (end - start)
        mask = [0, *(int(any(inside[start : max(end, start + 1)])) for start, end in offsets), 0]
        starts = [place for place in range(1, len(mask)) if mask[place] > mask[place - 1]]
        ends = [place for place in range(1, len(mask)) if mask[place] < mask[place - 1]]
        answers = [(start - 1, end - 1) for start, end in zip(starts, ends, strict=True)]
        if not answers:
            raise ConfigError(KEY, "the template's generation mask marks no answer", "another tokenizer")
        return Turns(ids, answers if every else answers[-1:])

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        # the template's text holds its own special tokens, BOS included
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return found["input_ids"], found["offset_mapping"]


def _covered(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The tokens of text[start:end]: those that end behind its start and start before its end."""
    first = next((place for place, (_, behind) in enumerate(offsets) if behind > start), len(offsets))
    last = next((place for place in range(first, len(offsets)) if offsets[place][0] >= end), len(offsets))
    return first, last


@functools.cache
def _say_date(name: str, date: str) -> None:
    logger.info("the chat template of %s prints the date: it is %s (data.date) in every launch", name, date)


@functools.cache
def _say_no_calls(name: str) -> None:
    logger.warning("the chat template of %s leaves out calls of tools: their turns are trained empty", name)
