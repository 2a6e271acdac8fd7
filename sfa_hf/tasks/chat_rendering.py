"""A tokenizer's chat template on one conversation, by transformers, in a process with limits."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template


def answer(arguments: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """The text, and start and end of each part that the template's generation mask marks.

    Args:
        arguments: of ``render_jinja_template``, for one conversation.
    """
    try:
        [text], marked = render_jinja_template(**arguments)
    except TemplateSyntaxError as err:
        raise ValueError(f"{err.message} on its line {err.lineno}") from None
    return text, marked[0] if marked else []
