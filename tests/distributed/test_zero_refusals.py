"""DeepSpeed set-ups outside the list are refused by name when an engine is attached, before a step.

NVMe offload, SuperOffload and quantised weights do not start on a CPU and are not here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zero_rows
from harness import run_ranks
from zero_rows import Row, quiet_deepspeed, start

from sfa_hf.engines import attach


class Unlisted(torch.optim.SGD):
    """An optimizer that nobody looked at."""


zero_rows.OPTIMIZERS["unlisted"] = Unlisted

REFUSED: dict[str, tuple[Row, dict[str, Any]]] = {
    "zero_hpz_partition_size": (Row(3, "bf16"), {"zero_optimization": {"zero_hpz_partition_size": 2}}),
    "zero_quantized_gradients": (Row(3, "bf16"), {"zero_optimization": {"zero_quantized_gradients": True}}),
    "compute_grad_norm": (Row(2, "bf16"), {"zero_optimization": {"compute_grad_norm": False}}),
    "offload_optimizer.ratio": (
        Row(3, "bf16", "cpu_adam", offload=True),
        {"zero_optimization": {"offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
    ),
    "16-bit master weights": (
        Row(2, "bf16", "cpu_adam", offload=True),
        {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}},
    ),
    "torch_autocast": (Row(2, "fp32"), {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}),
    "DeepCompile": (Row(2, "bf16"), {"compile": {"deepcompile": True}}),
    "DeepSpeedHybridEngine": (Row(2, "bf16"), {"hybrid_engine": {"enabled": True}}),
    "test_zero_refusals.Unlisted": (Row(2, "bf16", "unlisted"), {}),
}


FAST = [setup for setup, (row, _) in REFUSED.items() if row.optimizer not in zero_rows.COMPILED]


@pytest.mark.parametrize(
    "setups",
    [FAST, pytest.param([setup for setup in REFUSED if setup not in FAST], marks=pytest.mark.slow)],
    ids=["torch", "compiled"],
)
def test_what_was_not_checked_is_refused_by_name(setups: list[str]) -> None:
    for errors in run_ranks(refusals, 2, setups=setups):
        assert list(errors) == setups
        for setup, error in errors.items():
            assert setup in error
            assert "supported: " in error
            assert "\n" not in error


def refusals(setups: list[str]) -> dict[str, str]:
    with quiet_deepspeed():
        return {setup: _refusal(*REFUSED[setup]) for setup in setups}


def _refusal(row: Row, extra: dict[str, Any]) -> str:
    engine = start(row, extra=extra)
    with pytest.raises(NotImplementedError) as refused:
        attach(engine.module, engine.optimizer)
    return str(refused.value)
