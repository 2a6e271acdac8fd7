"""What a shell completes behind a command: shipped configs, keys, and the words that a key may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from sfa_hf.config.paths import cache_folder
from sfa_hf.config.shipped import folders, names

if TYPE_CHECKING:
    from sfa_hf.commands.command import Command


def completed(command: Command, words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """What may stand where ``incomplete`` does.

    Args:
        command: the one that is being written.
        words: that stand before it, behind the command.
        incomplete: as far as it is written. bash takes ``=`` as a word of its own: there, only the value.
    """
    places = command.entry.places
    if len(words) < len(places):
        place = places[len(words)]
        known = place.words or (names(folders(*place.kinds)) if place.kinds else ())
        items = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        # bash forgets what came before a file, and falls back to files where no name fits
        return items if place.words else [CompletionItem(incomplete, type="file"), *items]
    if not command.entry.keys:
        return []
    keys = known_keys(command)
    if words and words[-1] == "=" and len(words) > 1:
        return _values(keys, words[-2], incomplete)
    if words and not incomplete and words[-1] in keys:
        return _values(keys, words[-1], "")
    key, equals, value = incomplete.partition("=")
    if equals:
        return [CompletionItem(f"{key}={each.value}") for each in _values(keys, key, value)]
    return [CompletionItem(f"{name}=") for name in keys if name.startswith(incomplete)]


def known_keys(command: Command) -> dict[str, list[str]]:
    """The keys of a command and the words each may be.

    Kept in the cache: the declarations lie beside code that takes seconds to import.
    """
    file = cache_folder() / f"keys-{command.name}-{_state_of_the_code()}.json"
    with suppress(OSError, ValueError):
        return dict(json.loads(file.read_text(encoding="utf-8")))
    keys = {key.name: list(key.choices) for section in command.file.sections() for key in section.keys}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(keys), encoding="utf-8")
    return keys


def _state_of_the_code() -> str:
    """Of what decides on the keys: this package's files, and the version of transformers."""
    package = Path(__file__).parents[1]
    changed = max(file.stat().st_mtime_ns for file in package.rglob("*.py"))
    return f"{version('sfa_hf')}-{version('transformers')}-{changed:x}"


def _values(keys: dict[str, list[str]], key: str, written: str) -> list[CompletionItem]:
    if key == "task":
        return [CompletionItem(name) for name in names(folders("tasks")) if name.startswith(written)]
    return [CompletionItem(word) for word in keys.get(key, ()) if word.startswith(written)]
