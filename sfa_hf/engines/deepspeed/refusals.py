"""DeepSpeed features under which the shards or their copies would be others than the engines know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine

from sfa_hf.engines.refusals import refusal

# Optimizers that keep no second copy of the weights and take each step from the gradient they are given.
_OPTIMIZER_MODULES = (
    "torch.optim.",
    "deepspeed.ops.adam.",
    "deepspeed.ops.adagrad.",
    "deepspeed.ops.lion.",
    "transformers.optimization.",
    "apex.optimizers.",
    "bitsandbytes.optim.",
)


def refuse_unsupported_deepspeed(engine: DeepSpeedEngine) -> None:
    """Refuse what no merge was checked under.

    Raises:
        NotImplementedError: names the feature and what is supported.
    """
    if type(engine) is not DeepSpeedEngine:
        raise refusal(f"DeepSpeed's {type(engine).__qualname__}")
    for feature, found in _REFUSED.items():
        if found(engine):
            raise refusal(f"DeepSpeed with {feature}")
    base = type(engine.basic_optimizer)
    if not f"{base.__module__}.".startswith(_OPTIMIZER_MODULES):
        raise refusal(f"DeepSpeed with the optimizer {base.__module__}.{base.__qualname__}")


def _zero(engine: DeepSpeedEngine) -> Any:
    return engine._config.zero_config


def _offloads_to_nvme(engine: DeepSpeedEngine) -> bool:
    zero = _zero(engine)
    return any(
        where is not None and where.device == "nvme" for where in (zero.offload_optimizer, zero.offload_param)
    )


def _offload_option(option: str, plain: Any) -> Callable[[DeepSpeedEngine], bool]:
    """Whether optimizer offload sets ``option`` to other than ``plain``; absent in some versions."""
    return lambda engine: getattr(_zero(engine).offload_optimizer, option, plain) != plain


def _zero_option(option: str, plain: Any) -> Callable[[DeepSpeedEngine], bool]:
    """Whether the ZeRO section sets ``option`` to other than ``plain``; absent in some versions."""
    return lambda engine: getattr(_zero(engine), option, plain) != plain


def _low_precision_masters(engine: DeepSpeedEngine) -> bool:
    config = engine._config
    return engine.fp16_master_weights_and_gradients() or getattr(
        config.bfloat16_config, "bf16_master_weights_and_grads", False
    )


_REFUSED: dict[str, Callable[[DeepSpeedEngine], bool]] = {
    "NVMe offload": _offloads_to_nvme,
    "SuperOffload": _offload_option("super_offload", False),
    "partial optimizer offload (offload_optimizer.ratio)": _offload_option("ratio", 1.0),
    "ZenFlow": _zero_option("zenflow", None),
    "secondary partitions (zero_hpz_partition_size)": _zero_option("zero_hpz_partition_size", 1),
    "MiCS (mics_shard_size)": _zero_option("mics_shard_size", -1),
    "quantised weights (zero_quantized_weights)": _zero_option("zero_quantized_weights", False),
    "quantised frozen weights (zero_quantized_nontrainable_weights)": _zero_option(
        "zero_quantized_nontrainable_weights", False
    ),
    "quantised gradients (zero_quantized_gradients)": _zero_option("zero_quantized_gradients", False),
    "compute_grad_norm=false": _zero_option("compute_grad_norm", True),
    "16-bit master weights": _low_precision_masters,
    "torch_autocast": lambda engine: engine.torch_autocast_enabled(),
    "DeepCompile": lambda engine: engine._config.compile_config.deepcompile,
    "legacy_fusion": lambda engine: engine.optimizer_legacy_fusion(),
    "pipeline parallelism": lambda engine: engine.pipeline_parallelism,
    "tensor parallelism (autotp_size)": lambda engine: engine.autotp_size() > 1,
    "a model-parallel unit (mpu)": lambda engine: engine.mpu is not None,
    "sequence parallelism": lambda engine: engine.sequence_parallel_size > 1,
    "expert parallelism (MoE layers)": lambda engine: engine.has_moe_layers,
}
