r"""Reading \theta_o from the folder of an adapter: by PEFT's names, in the scale of the one in training."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Size, Tensor, nn

from sfa_hf.adapters.groups import Group, full_shape
from sfa_hf.engines.base import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files.adapter_folder import CONFIG, WEIGHTS
from sfa_hf.files.hub import from_hub
from sfa_hf.files.regular import json_object
from sfa_hf.files.safetensors_slices import Stored, open_tensors

_RIGHT = "the folder of an adapter of the same kind, on the same base"
_PREFIX = "base_model.model."
"""What PEFT's files have before the names of the base model."""
_OF_RANK = {
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "lora_dropout",
    "init_lora_weights",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of LoRA that take B_0 A_0 out of the base: values of ``init_lora_weights``, or how they begin."""
_NO_MATTER = {
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_version",
    "bias", "init_weights", "runtime_config", "target_modules", "target_parameters", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save", "megatron_config", "megatron_core",
    "lora_ga_config", "corda_config", "eva_config", "loftq_config", "ensure_weight_tying", "module_dropout",
    "rank_dropout",
}  # fmt: skip
"""Fields that leave the weight that the same tensors make as it is; the tensors themselves are compared."""


class AdapterFiles:
    """The tensors of a saved adapter, found by the parameter names of the model in training.

    Args:
        folder: with an adapter's config and weights, of :func:`find_adapter`.
        revision: as found with it.
        model: in training, with an adapter of the same kind.
        groups: of the model; their factors may have another rank in the folder.

    Attributes:
        revision: the commit that a Hub id stood for; None for a folder.
        shapes: of the factors that have another rank than in training.

    Raises:
        ConfigError: the adapter is of another kind, or belongs to another base.
    """

    def __init__(self, folder: Path, revision: str | None, model: nn.Module, groups: Sequence[Group]) -> None:
        self._folder, self.revision = folder, revision
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        self._stored = dict(open_tensors(folder / WEIGHTS, "anchor", stack))
        self._adapter, config = _trained_adapter(model)
        self._config = json_object(folder / CONFIG, "anchor", _RIGHT)
        self._refuse_other_kind(config)
        self._keys = _keys(model, self._adapter, config)
        self._scales = {
            group.factors[0]: self._scale_of(group) / group.low_rank.scaling
            for group in groups
            if group.low_rank is not None
        }
        self.shapes = self._other_ranks(groups)
        self._refuse_other_frozen(model)

    def check(self, shards: Sequence[Shard]) -> None:
        """Check that every shard's tensor is there, with the parameter's shape or another rank.

        Raises:
            ConfigError: names the tensor, and both shapes.
        """
        for shard in shards:
            shape = self._find(shard.name).shape
            if shape != tuple(self.shapes.get(shard.name, shard.shape)):
                problem = (
                    f"{self._folder} has {shard.name} of shape {list(shape)}, the model {list(shard.shape)}"
                )
                raise ConfigError("anchor", problem, _RIGHT)

    def read(self, shard: Shard) -> Tensor:
        """Read one shard's values, in the scale of the adapter in training."""
        values = self._find(shard.name).read(shard.offset, shard.offset + shard.data.numel())
        scale = self._scales.get(shard.name, 1.0)
        return values if scale == 1 else values.double().mul_(scale).float()

    def _find(self, name: str) -> Stored:
        for key in self._keys.get(name, ()):
            if key in self._stored:
                return self._stored[key]
        raise ConfigError("anchor", f"{self._folder} has no tensor {name}", _RIGHT)

    def _scale_of(self, group: Group) -> float:
        """S_o of a layer, as PEFT would compute it from the folder's config."""
        from peft.utils.other import get_pattern_key  # noqa: PLC0415 - an optional extra

        assert group.low_rank is not None
        config, layer = self._config, group.layer.removeprefix(_PREFIX)
        values = []
        for pattern, field in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
            patterns = config.get(pattern) or {}
            values.append(patterns.get(get_pattern_key(list(patterns), layer), config[field]))
        rank, alpha = values
        return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)

    def _other_ranks(self, groups: Sequence[Group]) -> dict[str, Size]:
        """Shapes of pairs of factors that differ from the model's in their rank alone."""
        shapes: dict[str, Size] = {}
        for group in groups:
            if group.low_rank is None or group.low_rank.experts:
                continue
            found = [Size(self._find(name).shape) for name in group.factors]
            meta = [torch.empty(shape, device="meta") for shape in (*found, *group.shapes)]
            with_rank = [tuple(each.shape) for each in group.low_rank.pair(*meta[:2])]
            own = [tuple(each.shape) for each in group.low_rank.pair(*meta[2:])]
            outer = [(left[:-1], right[-1]) for left, right in (with_rank, own)]
            if outer[0] == outer[1] and with_rank[0][-1] == with_rank[1][-2]:
                shapes.update(zip(group.factors, found, strict=True))
        return shapes

    def _refuse_other_kind(self, config: Any) -> None:
        mine = config.to_dict()
        kinds = [str(getattr(each["peft_type"], "value", each["peft_type"])) for each in (self._config, mine)]
        if kinds[0] != kinds[1]:
            raise ConfigError(
                "anchor", f"{self._folder} holds a {kinds[0]} adapter, the model {kinds[1]}", _RIGHT
            )
        ranks = _OF_RANK if kinds[1] == "LORA" else set()
        for field in sorted(mine.keys() & self._config.keys() - _NO_MATTER - ranks - {"peft_type"}):
            theirs, ours = _plain(self._config[field]), _plain(mine[field])
            if theirs != ours:
                problem = f"{self._folder} has {field}={theirs!r}, the model {ours!r}"
                raise ConfigError("anchor", problem, _RIGHT)
        starts = [_start(each) for each in (self._config, mine)]
        if starts[0] != starts[1]:
            changed = " and ".join(start or "nothing" for start in starts)
            problem = f"the base of {self._folder} and the model's were changed by {changed}"
            raise ConfigError("anchor", problem, "adapters that start from the same base")

    def _refuse_other_frozen(self, model: nn.Module) -> None:
        """Refuse tensors of layers that have no adapter in training, and other values of what is frozen."""
        held = model.state_dict(keep_vars=True)
        names = {key: name for name, keys in self._keys.items() for key in keys}
        for key, stored in self._stored.items():
            name = names.get(key) or next((n for n in (key, key.removeprefix(_PREFIX)) if n in held), None)
            if name is None:
                problem = f"{self._folder} has a tensor {key}, which the model lacks"
                raise ConfigError("anchor", problem, _RIGHT)
            value = held.get(name)
            if value is not None and not value.requires_grad and _differs(stored, value):
                problem = f"{self._folder} has another {name}, which is not trained"
                raise ConfigError("anchor", problem, _RIGHT)


def _differs(stored: Stored, value: Tensor) -> bool:
    """Whether a tensor that is whole in memory has other values in the file."""
    if type(value.detach()) is not Tensor or value.numel() != stored.numel or not value.is_floating_point():
        return False
    return not torch.equal(stored.read(0, stored.numel).to(value.dtype), value.detach().cpu().flatten())


def find_adapter(source: str) -> tuple[Path, str | None] | None:
    """The folder of an adapter, and the commit that a Hub id stands for; None where there is no adapter."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return (folder, None) if (folder / CONFIG).is_file() else None
    if folder.exists() or source.startswith((".", "/", "~")):
        return None
    with from_hub("anchor", f"the anchor {source}"):
        try:
            config = Path(huggingface_hub.hf_hub_download(source, CONFIG))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            return None
        huggingface_hub.hf_hub_download(source, WEIGHTS, revision=config.parent.name)
    return config.parent, config.parent.name


def _trained_adapter(model: nn.Module) -> tuple[str, Any]:
    """The name and config of the adapter in training."""
    configs: Mapping[str, Any] = getattr(model, "peft_config", {})
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    trained = [a for a in configs if any(f".{a}." in f".{name}." for name in names)]
    if len(configs) == 1:
        trained = list(configs)
    if len(trained) != 1:
        problem = f"holds one adapter, and the model trains {', '.join(trained) or 'none'}"
        raise ConfigError("anchor", problem, "a model that trains one adapter")
    return trained[0], configs[trained[0]]


def _keys(model: Any, adapter: str, config: Any) -> dict[str, list[str]]:
    """Names in the files of an adapter for each parameter of the model, asked of PEFT."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - an optional extra

    if config.is_prompt_learning:
        return {f"prompt_encoder.{adapter}.embedding.weight": ["prompt_embeddings"]}
    held = model.state_dict(keep_vars=True)
    fakes = {id(each): torch.empty(full_shape(each), device="meta") for each in held.values()}
    state = {name: fakes[id(each)] for name, each in held.items()}
    by_fake: dict[int, list[str]] = {}
    for key, value in get_peft_model_state_dict(model, state, adapter, save_embedding_layers=False).items():
        by_fake.setdefault(id(value), []).extend((key, _PREFIX + key))
    return {name: by_fake[id(fake)] for name, fake in state.items() if id(fake) in by_fake}


def _start(config: Mapping[str, Any]) -> str:
    """What a config takes out of the base at its start: the kind of start, and the rank that is in it."""
    start = config.get("init_lora_weights")
    if not isinstance(start, str) or not start.lower().startswith(_CHANGES_BASE):
        return ""
    return f"{start} of rank {config.get('r')}, {_plain(config.get('rank_pattern'))}"


def _plain(value: Any) -> Any:
    """A field as JSON has it; absent, empty and false are the same."""
    if isinstance(value, set | list | tuple):
        return sorted(map(str, value)) or None
    return getattr(value, "value", value) or None
