"""What a model folder holds beside its weights: config and tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

from sfa_hf.checkpoints.folder import SavedModel
from sfa_hf.checkpoints.vocabulary import with_rows
from sfa_hf.files.atomic import write_json

_PATTERNS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "*processor_config.json",
    "*.py",  # of models with code of their own
)


def copy_side_files(model: SavedModel, out: Path, *, rows: int | None, dtype: str | None) -> None:
    """Copy a model's config, its tokenizer and its code.

    Args:
        model: whose.
        out: where to.
        rows: of the vocabulary, where it is not the model's.
        dtype: of the weights, where it is not the model's.
    """
    for path in sorted({path for pattern in _PATTERNS for path in model.folder.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    templates = model.folder / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, out / templates.name)
    config = model.config if rows is None else with_rows(model.config, rows)
    if dtype is not None:
        config = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": dtype}
    write_json(out / "config.json", config)
