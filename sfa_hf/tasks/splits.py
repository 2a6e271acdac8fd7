"""Splits and parts of them, in the words of ``datasets``: ``train``, ``train[:90%]``, ``train+test``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import datasets

from sfa_hf.errors import ConfigError

T = TypeVar("T")


def chosen(
    splits: Mapping[str, Callable[[], Iterable[T]]], wanted: str | None, key: str, path: str
) -> Iterable[T]:
    """The rows that a source's ``split`` speaks of.

    Args:
        splits: by name, what gives a split's rows.
        wanted: ``split``, as :class:`datasets.ReadInstruction` reads it, or "all"; None for the only one.
        key: dotted key of the source, for errors.
        path: of the source.

    Raises:
        ConfigError: there is no such split, or it is not said which.
    """
    if wanted is None:
        if len(splits) > 1:
            raise ConfigError(
                f"{key}.split", f"{path} has several splits", f"one of its splits: {', '.join(splits)}"
            )
        wanted = next(iter(splits))
    if wanted == "all":
        return itertools.chain.from_iterable(rows() for rows in splits.values())
    if wanted in splits:
        return splits[wanted]()
    named = [name for name in splits if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", wanted)]
    held = {name: list(splits[name]()) for name in named}
    try:
        parts = datasets.ReadInstruction.from_spec(wanted).to_absolute(
            {name: len(held[name]) for name in held}
        )
    except (ValueError, AssertionError) as err:
        right = f"one of its splits ({', '.join(splits)}) or a part of one, e.g. {next(iter(splits))}[:90%]"
        raise ConfigError(f"{key}.split", f"{path} has no split {wanted!r}", right) from err
    return itertools.chain.from_iterable(held[part.splitname][part.from_ : part.to] for part in parts)
