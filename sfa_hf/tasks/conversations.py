"""Conversations of a row, in OpenAI's or ShareGPT's form, as messages that chat templates read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "model": "assistant",
    **{role: role for role in _ROLES},
}


def conversation(value: Any) -> tuple[Message, ...]:
    """The messages up to the last answer of the assistant.

    Args:
        value: a list of ``{role, content}`` (OpenAI) or ``{from, value}`` (ShareGPT). ``content`` may be null
            beside ``tool_calls``, and a list of parts that are text.

    Raises:
        ValueError: it is no such list; what is wrong, and in which message.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("is no list of messages")
    messages = tuple(_message(each, number) for number, each in enumerate(value, start=1))
    answers = [place for place, each in enumerate(messages) if each["role"] == "assistant"]
    if not answers or answers[-1] == 0:
        raise ValueError("has no answer of the assistant to something")
    return messages[: answers[-1] + 1]


def as_text(messages: tuple[Message, ...]) -> str:
    """Messages as a record shows them: a line with the role before each."""
    return "\n".join(f"{each['role']}: {answer_of(each)}" for each in messages)


def answer_of(message: Message) -> str:
    """What a message says; of a call of tools without words, the calls."""
    return str(message["content"] or json.dumps(message.get("tool_calls", ""), ensure_ascii=False))


def _message(value: Any, number: int) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f"message {number} is no object")  # noqa: TRY004 - about a value, not an argument
    given = {key: each for key, each in value.items() if each is not None}
    if "role" not in given and "from" in given:
        role, content = _SHAREGPT.get(given["from"]), given.get("value")
        rest: dict[str, Any] = {}
    else:
        role, content = given.get("role"), given.get("content")
        rest = {key: each for key, each in given.items() if key not in ("role", "content")}
    if role not in _ROLES:
        raise ValueError(
            f"message {number} is from {value.get('role', value.get('from'))!r}, not {', '.join(_ROLES)}"
        )
    if "tool_calls" in rest:
        rest["tool_calls"] = [_call(each) for each in rest["tool_calls"]]
        content = content or ""
    return {"role": role, "content": _text(content, number), **rest}


def _text(content: Any, number: int) -> str:
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part["text"]) for part in content)
    if content is None:
        raise ValueError(f"message {number} has null content, and calls no tool")
    if not isinstance(content, str):
        raise ValueError(f"message {number} has content that is not text")  # noqa: TRY004 - as above
    return content


def _call(call: Any) -> Any:
    """Arguments as an object: OpenAI's text of JSON would be written as text by most templates."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call
