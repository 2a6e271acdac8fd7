"""What has no engine is refused by name, with what is supported."""

from __future__ import annotations

import pytest
import torch
from tiny_training import tiny_model
from torch import nn

from sfa_hf import engines

SUPPORTED = "supported: one process, DDP, DeepSpeed ZeRO 0 to 3 .* and FSDP2"


def refused(model: nn.Module, setup: str, optimizer: object = None) -> None:
    optimizer = optimizer or torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad] or [torch.ones(1)]
    )
    with pytest.raises(NotImplementedError, match=f"{setup}.*{SUPPORTED}"):
        engines.attach(model, optimizer)


def test_a_model_in_one_process_has_the_plain_engine() -> None:
    model = tiny_model()
    assert engines.attach(model, torch.optim.AdamW(model.parameters())).name == "plain"


def test_trained_quantised_weights() -> None:
    class Quantised(nn.Parameter):
        """As the quantising libraries mark theirs."""

    Quantised.__module__ = "torchao.dtypes"
    model = nn.Linear(4, 4)
    model.weight.__class__ = Quantised
    refused(model, "a model that trains quantised weights")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
def test_a_frozen_quantised_base_is_not_touched(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(model.weight.data.to(dtype), requires_grad=False)
    model.hf_quantizer = object()
    engine = engines.attach(model, torch.optim.AdamW([model.bias]))
    assert [shard.name for shard in engine.shards()] == ["bias"]


def test_weights_on_the_meta_device() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    refused(model, "parameters on the meta device")


def test_tensor_parallel() -> None:
    model = tiny_model()
    model._tp_size = 2
    refused(model, "tensor parallel")


def test_a_parameter_that_no_flat_view_covers() -> None:
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(torch.randn(4, 3).t())
    refused(model, "non-contiguous parameter weight")


def test_an_unknown_optimizer() -> None:
    refused(tiny_model(), "LlamaForCausalLM stepped by object", optimizer=object())
