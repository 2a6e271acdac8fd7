"""Whether models compute alike, by every key of their configs but those known not to matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sfa_hf.checkpoints.folder import SavedModel
from sfa_hf.errors import ConfigError

_WITHOUT_EFFECT = """
    _name_or_path name_or_path _commit_hash transformers_version architectures auto_map dtype torch_dtype
    use_cache pretraining_tp initializer_range task_specific_params gradient_checkpointing problem_type
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id id2label label2id
    attention_dropout hidden_dropout classifier_dropout hidden_dropout_prob attention_probs_dropout_prob
    resid_pdrop embd_pdrop attn_pdrop dropout output_attentions output_hidden_states return_dict
    output_router_logits router_aux_loss_coef _attn_implementation attn_implementation finetuning_task
"""
_SEEN_AS_TENSORS = ("vocab_size", "tie_word_embeddings")
_HARMLESS = frozenset((*_WITHOUT_EFFECT.split(), *_SEEN_AS_TENSORS))
_LAYERS = frozenset({"num_hidden_layers", "layer_types"})
_SHOWN = 3


def check_configs(models: Sequence[SavedModel], *, layers: bool = True) -> None:
    """Compare the configs of models: as they are stored and, where these differ, as transformers reads them.

    A config may leave out what is the default, and older ones name it otherwise.

    Args:
        models: to compare with the first.
        layers: whether their number has to be the same.

    Raises:
        ConfigError: names keys that decide the computation, and both values.
    """
    ignored = _HARMLESS if layers else _HARMLESS | _LAYERS
    first, *others = models
    for other in others:
        kinds = {model.config.get("model_type") for model in (first, other)}
        if len(kinds) > 1 or not _differences(first.config, other.config, ignored):
            continue
        from sfa_hf.checkpoints.tied import whole_config  # noqa: PLC0415 - seconds that most merges save

        if wrong := _differences(whole_config(first), whole_config(other), ignored):
            shown = ", ".join(f"{key} {there} and {here}" for key, here, there in wrong[:_SHOWN])
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            problem = f"{other.source} and {first.source} compute otherwise: {shown}{more}"
            raise ConfigError(other.key, problem, "models of one config, or configs: any")


def _differences(
    here: Mapping[str, Any], there: Mapping[str, Any], ignored: frozenset[str]
) -> list[tuple[str, Any, Any]]:
    ours, theirs = dict(_flat(here, ignored)), dict(_flat(there, ignored))
    return [
        (key, ours.get(key), theirs.get(key))
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _flat(config: Mapping[str, Any], ignored: frozenset[str], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key in ignored:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, ignored, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
