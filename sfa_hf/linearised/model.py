r"""Linearised models: f_lin(x; \theta) = f(x; \theta_0) + J_\theta f(x; \theta_0) (\theta - \theta_0)."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from sfa_hf.errors import ConfigError, nearest
from sfa_hf.linearised import cache as caches
from sfa_hf.linearised.refusals import ENGINES, refuse, refuse_model, refuse_setup
from sfa_hf.linearised.saved import Origin, RemembersTheta0, adapter_theta_0, read_base
from sfa_hf.linearised.theta_0 import DTYPES, Place, Theta0, copies_of_trained, with_tangent

_logger = logging.getLogger(__name__)
_LINEARISED = ("logits", "hidden_states", "attentions")
Model = TypeVar("Model", bound=nn.Module)


def linearise(
    model: Model,
    base: str | PathLike[str] | None = None,
    *,
    theta_0: Mapping[str, Tensor] | None = None,
    theta_0_device: Place = "device",
    theta_0_dtype: str | None = None,
) -> Model:
    r"""Turn a causal language model into its linearisation at \theta_0, in place.

        f_lin(x; \theta) = f(x; \theta_0) + J_\theta f(x; \theta_0) (\theta - \theta_0)

    Only the forward pass of the model changes. \theta are its parameters: any Trainer trains them, and
    ``save_pretrained`` writes them. Its logits, hidden states and attentions are the linearised ones. The
    loss is that of the model on these logits. In a PEFT model only the adapters are linearised: parameters
    that are frozen at \theta_0 have no tangent and take no memory.

    A pass computes a forward-mode derivative (Jacobian-vector product); for its cost see
    ``benchmarks/linearised.py``. Memory beyond ordinary training: \theta_0 once, and \theta - \theta_0 during
    a pass, for the parameters with a tangent. \theta should be in float32 (mixed precision works): in a
    16-bit \theta the difference \theta - \theta_0 is mostly rounding.

    Example:
        >>> model = linearise(AutoModelForCausalLM.from_pretrained(previous), base="EleutherAI/pythia-410m")
        >>> Trainer(model, args, train_dataset=rows).train()

    Args:
        model: GPT-NeoX, Llama or Qwen2, or a PEFT model of one.
        base: folder or Hub id of \theta_0, the pre-trained weights for all tasks; None for the current
            weights of the model. For a PEFT model: a folder with its adapters.
        theta_0: tensors of \theta_0 by parameter name, instead of ``base``.
        theta_0_device: where \theta_0 is kept: "device" (where the model computes), or "cpu" (host memory,
            copied for each pass, so that it takes device memory only during a pass).
        theta_0_dtype: dtype that \theta_0 is kept in; None for its own. "bfloat16" halves the memory between
            passes, without loss if the base is stored in bfloat16.

    Returns:
        ``model``.

    Raises:
        ConfigError: ``base`` does not fit the model, or an argument is not valid.
        NotImplementedError: the model, its attention or the engine cannot be linearised; the error names it.
    """
    plain = _plain_model(model)
    if is_linearised(model):
        raise ConfigError("model", "is already linearised", "an ordinary model")
    _check(base, theta_0, theta_0_device, theta_0_dtype)
    refuse_model(plain)
    tensors, origin = _tensors(model, plain, base, theta_0)
    kept = Theta0(tensors, theta_0_device, getattr(torch, theta_0_dtype) if theta_0_dtype else None)
    plain.set_attn_implementation("eager")
    _mix_in(plain, Linearised)
    cast("Linearised", plain).theta_0 = kept
    _mix_in(model, RemembersTheta0)
    cast("RemembersTheta0", model).origin = origin
    return model


def is_linearised(model: nn.Module) -> bool:
    """Whether the model is linearised."""
    return isinstance(_plain_model(model), Linearised)


class Linearised:
    """The forward pass of a linearised model, mixed in before the class of the model."""

    theta_0: Theta0
    _warned = False
    _still: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the linearised forward pass, with the arguments and result of the model's own."""
        model = cast("PreTrainedModel", self)
        refuse_setup(model)
        parameters = inspect.signature(type(model).forward).parameters.values()
        names = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD][1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        labels, return_dict = given.pop("labels", None), given.pop("return_dict", None)
        cache = given.pop("past_key_values", None)
        found = self._linear(given, cache)
        if labels is not None:
            extra = {key: value for key, value in given.items() if key not in names}
            found["loss"] = model.loss_function(
                logits=found["logits"], labels=labels, vocab_size=model.config.vocab_size, **extra
            )
        output = CausalLMOutputWithPast(**found, past_key_values=cache)
        return output.to_tuple() if return_dict is False else output

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        r"""Generate as the model's class does. \theta is fixed, so \theta - \theta_0 is computed once."""
        self._still = self._theta_0_and_difference()
        try:
            own: Any = super()
            return own.generate(*args, **kwargs)
        finally:
            self._still = None

    def _theta_0_and_difference(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        parameters = dict(cast("PreTrainedModel", self).named_parameters())
        _check_names(parameters, self.theta_0.tensors)
        self._warned = self._warned or _warn_of_rounding(parameters)
        theta_0 = self.theta_0.beside(parameters)
        return theta_0, {name: parameters[name] - each for name, each in theta_0.items()}

    def _linear(self, given: dict[str, Any], cache: Any) -> dict[str, Any]:
        """Return logits and the other outputs that were asked for, and update the cache."""
        model = cast("PreTrainedModel", self)
        theta_0, difference = self._still or self._theta_0_and_difference()
        past, past_tangents = ([], []) if cache is None else caches.split(cache)

        def f(weights: dict[str, Tensor], past: caches.Layers) -> tuple[dict[str, Any], caches.Layers]:
            own = None if cache is None else caches.filled_with(past)
            call = {**given, "past_key_values": own, "use_cache": own is not None}
            output = functional_call(_Plain(model), {f"model.{n}": w for n, w in weights.items()}, (), call)
            wanted = {key: output[key] for key in _LINEARISED if output.get(key) is not None}
            return wanted, [] if own is None else caches.contents(own)

        values, tangents = jvp(f, (theta_0, past), (difference, past_tangents))[:2]
        if cache is not None:
            caches.store(cache, values[1], tangents[1])
        return tree_map(_sum, values[0], tangents[0])


class _Plain(nn.Module):
    """The model with its own forward pass, called as a function of its weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **kwargs: Any) -> Any:
        own: Any = super(Linearised, cast("Linearised", self.model))  # the class after the mixed-in one
        return own.forward(**kwargs)


def _sum(at_0: Tensor, tangent: Tensor) -> Tensor:
    """Add in at least float32: a 16-bit sum would lose the small tangent to rounding."""
    dtype = torch.promote_types(at_0.dtype, torch.float32)
    return at_0.to(dtype) + tangent.to(dtype)


def _plain_model(model: nn.Module) -> PreTrainedModel:
    """Return the model, or the base model that holds the adapters of a PEFT model."""
    plain = cast("Any", model).get_base_model() if hasattr(model, "peft_config") else model
    if not isinstance(plain, PreTrainedModel):
        raise ConfigError("model", f"is a {type(plain).__name__}", "a transformers or PEFT model")
    return plain


def _tensors(
    model: nn.Module, plain: PreTrainedModel, base: Any, theta_0: Mapping[str, Tensor] | None
) -> tuple[Mapping[str, Tensor], Origin]:
    r"""Return the part of \theta_0 that has a tangent, and the origin to save beside the weights."""
    if theta_0 is not None:
        return with_tangent(plain, {**dict(plain.named_parameters()), **theta_0}, "theta_0"), Origin()
    if base is None:
        return copies_of_trained(plain), Origin.of_now(plain)
    if model is not plain:
        return with_tangent(plain, adapter_theta_0(model, str(base)), "base"), Origin()
    tensors, origin = read_base(str(base), next(plain.parameters()).dtype)
    return with_tangent(plain, tensors, "base"), origin


def _mix_in(model: nn.Module, first: type) -> None:
    """Give this model its own class: ``first``, then its old class, under the old name.

    FSDP2 does the same in ``fully_shard``. The name is written to config.json.
    """
    old = type(model)
    names: dict[str, Any] = {"__module__": old.__module__, "__qualname__": old.__qualname__}
    if hasattr(first, "forward"):
        # the Trainer reads from the signature which columns of a dataset to keep
        @functools.wraps(old.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return first.forward(*args, **kwargs)

        names["forward"] = forward
    model.__class__ = type(old.__name__, (first, old), names)


def _check(base: Any, theta_0: Any, device: str, dtype: str | None) -> None:
    if base is not None and theta_0 is not None:
        raise ConfigError("base", "is given together with theta_0", "only one of them")
    if device not in ("device", "cpu"):
        raise ConfigError("theta_0_device", f"is {device!r}", nearest(str(device), ("device", "cpu")))
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError("theta_0_dtype", f"is {dtype!r}", nearest(str(dtype), DTYPES))


def _check_names(parameters: Mapping[str, Tensor], theta_0: Mapping[str, Tensor]) -> None:
    """Refuse a parameter that was frozen at :func:`linearise`: it would silently get no gradient."""
    if theta_0.keys() - parameters.keys():
        raise refuse("a model whose parameters were replaced after linearise() (FSDP1)", ENGINES)
    for name, parameter in parameters.items():
        if parameter.requires_grad and name not in theta_0:
            problem = "is trained, but was frozen when the model was linearised"
            raise ConfigError(name, problem, "requires_grad set before linearise()")


def _warn_of_rounding(parameters: Mapping[str, Tensor]) -> bool:
    narrow = {p.dtype for p in parameters.values() if p.requires_grad and p.dtype.itemsize < 4}
    for dtype in narrow:
        _logger.warning(
            "the weights of the linearised model are %s: theta - theta_0 is mostly rounding; keep them in "
            "float32 and compute in mixed precision (bf16=True without DeepSpeed's own bf16)",
            dtype,
        )
    return bool(narrow)
