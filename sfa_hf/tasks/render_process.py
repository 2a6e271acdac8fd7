"""The processes in which templates are filled in that could take any time or memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfa_hf.config.apart import Apart, ApartError
from sfa_hf.tasks import rendering
from sfa_hf.tasks.rendering import MOST_MIB, MOST_SECONDS, Kind, MissingColumnError, NullColumnError

_templates = Apart(rendering.__file__, MOST_SECONDS, MOST_MIB)
# a path, not an import: transformers is not for those who have no chat template
_CHATS = Path(rendering.__file__).with_name("chat_rendering.py")
_chat_templates = Apart(str(_CHATS), MOST_SECONDS, MOST_MIB)
_ERRORS = {each.__name__: each for each in (MissingColumnError, NullColumnError)}


def render_apart(kind: Kind, source: str, row: Mapping[str, Any]) -> Any:
    """Fill in one row; raises as :func:`sfa_hf.tasks.rendering.compiled` says."""
    try:
        value = _templates.ask((kind, source, dict(row)))
    except ApartError as err:
        raise _ERRORS.get(err.kind, ValueError)(str(err)) from None
    return tuple(value) if kind == "list" else value


def render_chat_apart(arguments: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """A chat template on one conversation; see :func:`sfa_hf.tasks.chat_rendering.answer`.

    Raises:
        ValueError: it fails, or takes too much.
    """
    try:
        text, marked = _chat_templates.ask(arguments)
    except ApartError as err:
        raise ValueError(str(err)) from None
    return text, marked
