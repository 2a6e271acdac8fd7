"""Folders named by the hash of what built them; an incomplete one is built again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from sfa_hf.config.paths import cache_folder
from sfa_hf.files.atomic import write_json
from sfa_hf.files.folders import new_folder

_MANIFEST = "manifest.json"
#: Code that decides what is built: a change to it is a change of the content.
_SOURCES = ("models", "generated")
_LIBRARIES = ("torch", "transformers", "tokenizers")


def folder(recipe: Mapping[str, Any], build: Callable[[Path], None], cache_dir: Path | None = None) -> Path:
    """Return the folder that ``build`` fills for ``recipe``.

    The folder appears by one rename, when it is complete. A folder that lacks files, or whose files differ
    from the manifest (an interrupted copy, a full disk), is built again. If several processes ask at the same
    time, one builds and the others wait.

    Args:
        recipe: JSON values; hashed into the name, with the code of this package and the versions of
            libraries.
        build: fills an empty folder.
        cache_dir: parent folder; None is :func:`sfa_hf.config.paths.cache_folder`.
    """
    parent = cache_dir or cache_folder()
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / f"{recipe.get('family', 'model')}-{_digest(recipe)}"
    if _is_whole(target):
        return target
    with FileLock(target.with_suffix(".lock")):
        if not _is_whole(target):
            with new_folder(target) as filled:
                build(filled)
                write_json(filled / _MANIFEST, _hashes(filled))
    return target


def _is_whole(target: Path) -> bool:
    try:
        manifest = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(manifest == _hashes(target))


def _hashes(filled: Path) -> dict[str, str]:
    files = sorted(path for path in filled.iterdir() if path.name != _MANIFEST)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _digest(recipe: Mapping[str, Any]) -> str:
    package = Path(__file__).parent.parent
    code = [path.read_text("utf-8") for part in _SOURCES for path in sorted((package / part).glob("*.py"))]
    content = [dict(recipe), code, [version(library) for library in _LIBRARIES]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
