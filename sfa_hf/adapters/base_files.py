r"""A whole model as \theta_o of a training of adapters, where it is their base: \Delta W_o = 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sfa_hf.adapters.groups import Group
from sfa_hf.adapters.kinds import tuner_layers
from sfa_hf.engines.base import Shard
from sfa_hf.engines.sharded import is_sharded
from sfa_hf.errors import ConfigError
from sfa_hf.shards.model_files import AnchorFiles

_RIGHT = "the folder of an adapter, or of the model that the adapters were put on"
_COMPARED = 2**22
"""Entries compared at once."""


class BaseFiles:
    """The files of the base of a model with LoRA: zeros for the adapters, its tensors for other parameters.

    Args:
        source: a local folder, or a Hub id.
        model: in training, with adapters.
        groups: of the model.

    Attributes:
        revision: the commit that a Hub id stood for; None for a folder.

    Raises:
        ConfigError: its weights are not those of the base, or the adapters are of another kind.
    """

    def __init__(self, source: str, model: nn.Module, groups: Sequence[Group]) -> None:
        self._source = source
        self._factors = {name for group in groups for name in group.factors}
        for group in groups:
            if group.low_rank is None or group.low_rank.magnitude is not None:
                kind = "DoRA" if group.low_rank else group.kind
                raise ConfigError("anchor", f"{source} is a whole model, and the adapters are {kind}", _RIGHT)
        names = dict(_names_in_base(model))
        self._files = AnchorFiles(source, model, names, self._factors)
        self.revision = self._files.revision
        self._refuse_another_base(model, names)

    def check(self, shards: Sequence[Shard]) -> None:
        """As of :class:`AnchorFiles`, for what is not a factor."""
        self._files.check([shard for shard in shards if shard.name not in self._factors])

    def read(self, shard: Shard) -> Tensor:
        """Zeros for a factor, the file's values for other parameters."""
        return torch.zeros(()) if shard.name in self._factors else self._files.read(shard)

    def _refuse_another_base(self, model: nn.Module, names: dict[str, str]) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or name not in names:
                continue
            if is_sharded(parameter):
                problem = f"{self._source} is a whole model, and the base is split over the processes"
                raise ConfigError("anchor", problem, "anchor=None, or the folder of an adapter")
            flat = parameter.detach().reshape(-1)
            for start in range(0, flat.numel(), _COMPARED):
                own = flat[start : start + _COMPARED]
                stored = self._files.read(Shard(name, own, start, parameter.shape))
                if not own.is_floating_point() or not torch.equal(stored.to(own.dtype), own.cpu()):
                    problem = f"{name} of {self._source} is not that of the base: the update is no adapter"
                    raise ConfigError("anchor", problem, _RIGHT)


def _names_in_base(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Parameters under adapters, and of modules trained whole, with the names that the base gives them."""
    from peft.utils.other import ModulesToSaveWrapper  # noqa: PLC0415 - an optional extra

    inside = {f"{name}.base_layer.": f"{name}." for name, _ in tuner_layers(model)}
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            inside[f"{name}.original_module."] = f"{name}."
            inside |= {f"{name}.modules_to_save.{adapter}.": f"{name}." for adapter in module.modules_to_save}
    for name, _ in model.named_parameters(remove_duplicate=False):
        plain = name
        for prefix, instead in sorted(inside.items(), key=lambda pair: -len(pair[0])):
            if plain.startswith(prefix):
                plain = instead + plain[len(prefix) :]
        if plain != name:
            yield name, plain
