"""Asking the Hugging Face Hub without making a user wait, or read a traceback, when it is out of reach."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import huggingface_hub
from huggingface_hub import constants

from sfa_hf.errors import ConfigError

_SECONDS_TO_ANSWER = 10


@contextmanager
def from_hub(key: str, what: str) -> Iterator[None]:
    """Load something from the Hub or, where the Hub is out of reach, from the local cache.

    One request tells whether the Hub answers; without it the libraries retry for 23 seconds per file and
    write a line for each try.

    Args:
        key: the config key that names it.
        what: what is loaded, for the error's text.

    Raises:
        ConfigError: neither the Hub nor the cache has it.
    """
    reachable = _hub_answers()
    with _offline(not reachable):
        try:
            yield
        except (OSError, ValueError, RuntimeError, RecursionError, datasets.exceptions.DatasetsError) as err:
            if isinstance(err, ConfigError):
                raise
            if not reachable:
                right = "connect, or name a local folder or file"
                raise ConfigError(
                    key, f"{what} needs the Hugging Face Hub, which could not be reached", right
                ) from err
            raise ConfigError(
                key,
                f"{what} could not be loaded from the Hugging Face Hub: {first_line(err)}",
                "an existing Hub id that you may read, or a local path",
            ) from err


@functools.lru_cache(maxsize=1)
def _hub_answers() -> bool:
    if constants.is_offline_mode():
        return False
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
    except Exception:  # whatever the HTTP client of this version raises, the Hub did not answer
        logging.getLogger(__name__).debug("the Hub did not answer", exc_info=True)
        return False
    return True


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Put the libraries into the mode that ``HF_HUB_OFFLINE=1`` selects at import."""
    places: list[Any] = [constants, datasets.config]
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = wanted or place.HF_HUB_OFFLINE
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def first_line(err: BaseException) -> str:
    """The first line of an error's text, or its class's name."""
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__
