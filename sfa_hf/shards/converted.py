"""Tensors that a model's files hold in another form than its memory: experts apart that are used fused.

transformers has the names and the operations of each architecture (``conversion_mapping``), applies them in
``from_pretrained`` and undoes them in ``save_pretrained``. They are applied here as there, one parameter at a
time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from sfa_hf.errors import ConfigError
from sfa_hf.files.safetensors_slices import Stored


class Readable(Protocol):
    """A tensor of which slices can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, first: int, last: int) -> Tensor:
        """Entries [first, last) of the flattened tensor."""
        ...


class Named(NamedTuple):
    """A stored tensor, and its name in the file; the first of several that one is made of."""

    key: str
    tensor: Readable


def converts(model: nn.Module) -> bool:
    """Whether files of this model hold any tensor under another name, or in another form."""
    if not isinstance(model, PreTrainedModel):
        return False
    return bool(get_model_conversion_mapping(_as_made(model), add_legacy=False))


def in_memory(stored: Iterable[tuple[str, Stored]], model: nn.Module) -> Iterator[tuple[str, Named]]:
    """Give the stored tensors by the names, and in the form, that they have in memory.

    Args:
        stored: names and tensors of all of a model's files.
        model: the model; only the mapping of its class is used.
    """
    mapping = get_model_conversion_mapping(_as_made(model)) if isinstance(model, PreTrainedModel) else []
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    names = dict.fromkeys((*_names(model.named_parameters), *_names(model.named_buffers)), True)
    prefix = getattr(model, "base_model_prefix", None) or None
    groups: dict[str, _Group] = {}
    for key, tensor in sorted(stored, key=lambda pair: dot_natural_key(pair[0])):
        name, pattern = rename_source_key(key, renamings, converters, prefix, names)
        if pattern is None or (name not in names and key in names):
            yield key if pattern else name, Named(key, tensor)
        else:
            group = groups.setdefault(name, _Group(name, by_pattern[pattern], model))
            group.sources.append((key, pattern, tensor))
    for group in groups.values():
        for name, shape in group.shapes().items():
            yield name, Named(group.sources[0][0], _Converted(group, name, shape))


class _Group:
    """Stored tensors that become one or several parameters together."""

    last: tuple[_Group, dict[str, Tensor]] | None = None
    """The values that were read last: parameters are read slice by slice, one after the other."""

    def __init__(self, name: str, converter: WeightConverter, model: Any) -> None:
        self._name, self._converter, self._model = name, converter, model
        self.sources: list[tuple[str, str, Stored]] = []

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what they become; nothing is read."""
        try:
            made = self._convert(lambda tensor: torch.empty(tensor.shape, device="meta"))
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            held = ", ".join(key for key, _, _ in self.sources[:3])
            problem = f"{held} ... cannot be made into {self._name}: {error}"
            raise ConfigError("anchor", problem, "a whole checkpoint of the same model") from error
        return {name: tuple(value.shape) for name, value in made.items()}

    def values(self, name: str) -> Tensor:
        if _Group.last is None or _Group.last[0] is not self:
            _Group.last = None  # gives its memory back before more is taken
            made = self._convert(lambda tensor: tensor.read(0, tensor.numel).view(tensor.shape))
            _Group.last = self, made
        return _Group.last[1][name]

    def _convert(self, value_of: Any) -> dict[str, Tensor]:
        converter = copy.deepcopy(self._converter)
        for key, pattern, tensor in self.sources:
            converter.add_tensor(self._name, key, pattern, value_of(tensor))
        made = converter.convert(self._name, model=self._model, config=self._model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


class _Converted(NamedTuple):
    group: _Group
    name: str
    shape: tuple[int, ...]

    def read(self, first: int, last: int) -> Tensor:
        return self.group.values(self.name).flatten()[first:last]


def _as_made(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the classes that it was made of, by whose names transformers finds its mapping.

    ``fully_shard`` gives each module that it shards a class of another name.
    """
    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        return model
    made_of: Any = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
    with torch.device("meta"):
        return made_of(model.config)


def _names(named: Any) -> Iterator[str]:
    return (name for name, _ in named(remove_duplicate=False))
