"""Models whose embeddings have other numbers of rows, or whose tokenizers number tokens otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sfa_hf.checkpoints.folder import SavedModel
from sfa_hf.errors import ConfigError
from sfa_hf.files.safetensors_slices import Stored


def differ_by_vocabulary(models: Sequence[SavedModel], tensors: Sequence[Stored]) -> bool:
    """Whether these tensors differ in their rows alone, and each has its model's ``vocab_size`` of them."""
    return len({tensor.shape[1:] for tensor in tensors}) == 1 and all(
        tensor.shape and tensor.shape[0] == model.vocabulary
        for model, tensor in zip(models, tensors, strict=True)
    )


def with_rows(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """``config`` for an embedding of that many rows."""
    if "vocab_size" in config:
        return {**config, "vocab_size": rows}
    return {**config, "text_config": {**config["text_config"], "vocab_size": rows}}


def check_tokenizers(models: Sequence[SavedModel]) -> None:
    """Check that an id is the same token in all models, as far as tokenizer.json files tell.

    Raises:
        ConfigError: names the first id that is not.
    """
    files = [(model, model.folder / "tokenizer.json") for model in models]
    known = [(model, file.read_bytes()) for model, file in files if file.is_file()]
    if len({text for _, text in known}) < 2:
        return
    (first, text), *others = known
    expected = _tokens(text, first)
    for model, other in others:
        tokens = _tokens(other, model)
        wrong = sorted(id_ for id_ in expected.keys() & tokens.keys() if expected[id_] != tokens[id_])
        if wrong:
            id_ = wrong[0]
            problem = (
                f"{model.source} has token {tokens[id_]!r} at id {id_}, {first.source} {expected[id_]!r}"
            )
            raise ConfigError(model.key, problem, "models with one tokenizer, or tokenizer: any")


def _tokens(text: bytes, model: SavedModel) -> dict[int, str]:
    try:
        values = json.loads(text)
        vocabulary = values["model"]["vocab"]
        if isinstance(vocabulary, dict):
            tokens = {id_: token for token, id_ in vocabulary.items()}
        else:  # a Unigram model's: tokens with their scores; the place in the list is the id
            tokens = {id_: entry[0] for id_, entry in enumerate(vocabulary)}
        return tokens | {each["id"]: each["content"] for each in values.get("added_tokens", [])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        path = model.folder / "tokenizer.json"
        raise ConfigError(model.key, f"{path} is not a tokenizer ({error!r})", "an unbroken file") from error
