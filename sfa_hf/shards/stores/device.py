"""Memory of the device that the weights are on."""

from __future__ import annotations

import torch
from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.shards.store import FlatStore


class DeviceStore(FlatStore):
    """Memory of the device that the weights are on.

    Raises:
        ConfigError: they are on several.
    """

    name = "device"

    def allocate(self) -> Tensor:
        if len(self.place.devices) > 1:
            problem = "'device', but some weights are in host memory"
            raise ConfigError("anchor_device", problem, "'cpu' or 'disk'")
        return torch.empty(self.place.numel, dtype=self.place.dtype, device=self.place.device)
