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
_FIRST = 2**14
"""Number of entries of each tensor that :func:`digest` reads."""
DTYPES = ("float32", "bfloat16", "float16", "float64")


class Theta0:
    r"""\theta_0 of the parameters that have a tangent; the others do not change.

    Args:
        tensors: tensors by parameter name.
        place: "device" keeps them where the model computes; "cpu" keeps them in host memory and copies them
            for each pass, until its backward pass is done.
        dtype: dtype they are kept in; None for their own. Each pass computes in the dtype of the parameters.
    """

    def __init__(self, tensors: Mapping[str, Tensor], place: Place, dtype: torch.dtype | None) -> None:
        self._place = place
        self.tensors = {
            name: tensor.detach().to("cpu" if place == "cpu" else tensor.device, dtype or tensor.dtype)
            for name, tensor in tensors.items()
        }

    def beside(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Return \theta_0 on the device and in the dtype of each parameter.

        Args:
            parameters: all parameters of the model, by name.
        """
        if self._place == "device":
            self.tensors = {name: each.to(parameters[name].device) for name, each in self.tensors.items()}
        return {name: each.to(parameters[name]) for name, each in self.tensors.items()}


def with_tangent(model: nn.Module, theta_0: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    r"""Return the part of \theta_0 that has a tangent: trained parameters, and those frozen at other values.

    Args:
        model: the model at \theta.
        theta_0: tensors of all its parameters.
        key: name of the argument that \theta_0 came from, for errors.

    Raises:
        ConfigError: names or shapes differ from those of the model.
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
    """Return copies of the parameters that are not frozen."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    r"""Hash the first entries of each tensor of a \theta_0; training changes all of them."""
    firsts = ((name, tensor.detach().reshape(-1)[:_FIRST], tensor.shape) for name, tensor in tensors)
    return fingerprint_of((Shard(name, first, 0, shape), first) for name, first, shape in firsts)
