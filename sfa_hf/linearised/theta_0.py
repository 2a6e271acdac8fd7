r"""\theta_0, the pre-trained weights at which a model is linearised, the same for all tasks.

Not to be taken for \theta_o, the anchor of a merge: the weights at the start of one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from sfa_hf.engines.base import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.shards.fingerprint import fingerprint_of

Place = Literal["device", "cpu"]
_BEGINNING = 2**14
"""Entries of each tensor that :func:`digest` reads."""
DTYPES = ("float32", "bfloat16", "float16", "float64")


class Theta0:
    r"""\theta_0 of the parameters that have a tangent; the others stand still.

    Args:
        tensors: by the parameters' names.
        place: "device" keeps them where the model computes; "cpu" keeps them in host memory and copies them
            over for each pass, until its backward pass is done.
        dtype: they are kept in; None: as they are. Each pass computes in the parameters' own.
    """

    def __init__(self, tensors: Mapping[str, Tensor], place: Place, dtype: torch.dtype | None) -> None:
        self._place = place
        self.tensors = {
            name: tensor.detach().to("cpu" if place == "cpu" else tensor.device, dtype or tensor.dtype)
            for name, tensor in tensors.items()
        }

    def beside(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""\theta_0 on the device and in the dtype of each of its parameters.

        Args:
            parameters: all of the model's, by name.
        """
        if self._place == "device":
            self.tensors = {name: each.to(parameters[name].device) for name, each in self.tensors.items()}
        return {name: each.to(parameters[name]) for name, each in self.tensors.items()}


def with_tangent(model: nn.Module, theta_0: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    r"""The part of \theta_0 that has a tangent: what is trained, and what is frozen elsewhere than it was.

    Args:
        model: at \theta.
        theta_0: the tensors of all its parameters.
        key: argument that \theta_0 came by, for errors.

    Raises:
        ConfigError: names or shapes differ.
    """
    found = {}
    for name, parameter in model.named_parameters():
        other = theta_0.get(name)
        if other is None or other.shape != parameter.shape:
            problem = f"has no {name}" if other is None else f"has {name} of shape {list(other.shape)}"
            raise ConfigError(key, problem, f"the model's own architecture: {list(parameter.shape)}")
        other = other.to(parameter.device)
        if parameter.requires_grad or not torch.equal(parameter, other.to(parameter.dtype)):
            found[name] = other
    return found


def copies_of_trained(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that are not frozen."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    r"""Tell one \theta_0 from another by the beginning of each of its tensors: training changes them all."""
    beginnings = ((name, tensor.detach().reshape(-1)[:_BEGINNING], tensor.shape) for name, tensor in tensors)
    return fingerprint_of((Shard(name, first, 0, shape), first) for name, first, shape in beginnings)
