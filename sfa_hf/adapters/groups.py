r"""Groups of parameters that make one update \Delta W together, found by asking PEFT's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor, nn

from sfa_hf.adapters.kinds import kind_of, products_of, refuse_inexact_prompts, tuner_layers
from sfa_hf.adapters.low_rank import Pair, squared_norm
from sfa_hf.errors import ConfigError

_FREE_OF_BASE = {"ALoraLinearVariant", "MiCALinearVariant", "MiCAEmbeddingVariant", "VeloraLinearVariant"}
"""Variants of LoRA whose \\Delta W is s B A, as of LoRA without a variant."""


class Squares(NamedTuple):
    r"""Squared Frobenius norms of one merge.

    Attributes:
        before: ||\Delta W - \Delta W_o||^2 before it. DoRA: of the whole weights. Products other than of two
            matrices: of the factor that is scaled.
        after: the same, after.
        discarded: of what the rank cannot hold.
        energy: ||(1 - \beta) \Delta W + \beta \Delta W_o||^2.
    """

    before: float
    after: float
    discarded: float
    energy: float


@dataclass(frozen=True, eq=False)
class Group:
    r"""The trained factors of one product in one layer: \Delta W is linear in each of them.

    Attributes:
        layer: the layer's name in the model.
        kind: of the adapter, as PEFT calls it.
        factors: names of the parameters; the one that PEFT starts at zero stands first.
        shapes: their full shapes.
        low_rank: how the factors are two matrices; None where they are not.
    """

    layer: str
    kind: str
    factors: tuple[str, ...]
    shapes: tuple[Size, ...]
    low_rank: LowRank | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters that are merged together."""
        return tuple(name for name, _ in self.full_shapes())

    def full_shapes(self) -> list[tuple[str, Size]]:
        """Names and shapes of all parameters that are merged together."""
        named = list(zip(self.factors, self.shapes, strict=True))
        if self.low_rank and self.low_rank.magnitude and self.low_rank.magnitude_shape is not None:
            named.append((self.low_rank.magnitude, self.low_rank.magnitude_shape))
        return named

    def squared_update(self, values: Mapping[str, Tensor], scaled: str) -> float:
        r"""||\Delta W||_F^2 where it is s B A; otherwise of the factor that is scaled.

        Args:
            values: of the factors, whole and in fp64.
            scaled: name of the factor that is scaled.
        """
        if self.low_rank is None:
            return float(values[scaled].square().sum())
        pair = self.low_rank.pair(*map(values.__getitem__, self.factors))
        return self.low_rank.scaling**2 * squared_norm(pair)


@dataclass(frozen=True, eq=False)
class LowRank:
    r"""How the two factors of LoRA are \Delta W = s B A, and of DoRA m (W + s B A) / ||W + s B A||.

    Attributes:
        module: the layer of PEFT.
        scaling: s.
        parts: matrices in one parameter: experts, or the groups of a convolution.
        experts: whether the parts are experts, which PEFT interleaves in B.
        embedding: whether the factor that starts at zero is A, as in embeddings.
        magnitude: name of m; None without.
        magnitude_shape: of m.
    """

    module: Any
    scaling: float
    parts: int = 1
    experts: bool = False
    embedding: bool = False
    magnitude: str | None = None
    magnitude_shape: Size | None = None

    @property
    def transposed(self) -> bool:
        r"""Whether the pair is that of \Delta W^T: its left matrix is always the one that starts at zero."""
        return self.embedding and self.magnitude is None

    def pair(self, first: Tensor, second: Tensor) -> Pair:
        """Give the matrices of the group's two factors, each in its full shape."""
        b, a = (second, first) if self.embedding else (first, second)
        pair = Pair(self._b(b), a.reshape(self.parts, -1, prod(a.shape[1:])))
        return Pair(pair.right.mT, pair.left.mT) if self.transposed else pair

    def factors(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Give the group's two factors, each flat: :meth:`pair` undone."""
        left, right = (pair.right.mT, pair.left.mT) if self.transposed else pair
        b = left.permute(1, 2, 0) if self.experts else left
        flat = b.reshape(-1), right.reshape(-1)
        return flat[::-1] if self.embedding else flat

    def _b(self, b: Tensor) -> Tensor:
        if self.experts:
            return b.reshape(b.shape[0], -1, self.parts).permute(2, 0, 1)
        return b.reshape(self.parts, b.shape[0] // self.parts, -1)


def find_groups(model: nn.Module, concerns: Callable[[str], bool]) -> list[Group]:
    r"""The groups of all trained adapters in a model; other trained parameters are averaged as they are.

    Args:
        model: with or without adapters; may be on "meta".
        concerns: whether a parameter is merged.

    Raises:
        ConfigError: the average of an adapter's parameters would not be that of what it does; patterns that
            take some factors of a group alone; factors that are shared.
    """
    refuse_inexact_prompts(model)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    groups = [group for name, layer in tuner_layers(model) for group in _groups_of(name, layer, names)]
    _refuse_shared(groups, model)
    return [group for group in groups if _concerned(group, concerns)]


def _groups_of(name: str, layer: Any, names: Mapping[int, str]) -> Iterator[Group]:
    own = [p for attribute in layer.adapter_layer_names for p in _parameters(getattr(layer, attribute))]
    if not any(id(parameter) in names for parameter in own):
        return
    for attributes in products_of(layer):
        present = [a for a in attributes if hasattr(layer, a)]
        for adapter in dict.fromkeys(key for a in present for key in getattr(layer, a)):
            held = [_weight(getattr(layer, a)[adapter]) for a in present if adapter in getattr(layer, a)]
            factors = [parameter for parameter in held if id(parameter) in names]
            if len(factors) > 1 or (factors and _magnitude(layer, adapter) is not None):
                yield _group(name, layer, adapter, factors, names)


def _group(name: str, layer: Any, adapter: str, factors: list[Any], names: Mapping[int, str]) -> Group:
    kind = kind_of(layer)
    shapes = tuple(map(full_shape, factors))
    low_rank = _low_rank(name, layer, adapter, names) if kind == "lora" else None
    return Group(name, kind, tuple(names[id(p)] for p in factors), shapes, low_rank)


def _low_rank(name: str, layer: Any, adapter: str, names: Mapping[int, str]) -> LowRank:
    variant = type(layer.lora_variant.get(adapter)).__name__
    magnitude = _magnitude(layer, adapter)
    if magnitude is None and variant not in {"NoneType", *_FREE_OF_BASE}:
        problem = f"{name} is a LoRA layer of the variant {variant}, whose average is not exact"
        raise ConfigError("lora", problem, "LoRA, rsLoRA, DoRA, or lora='factors'")
    embedding = adapter in layer.lora_embedding_A
    experts = int(getattr(layer, "num_experts", 1))
    parts = experts if experts > 1 else int(getattr(layer.get_base_layer(), "groups", 1))
    if magnitude is not None and parts > 1:
        raise ConfigError(
            "lora", f"{name} is DoRA on a convolution in groups", "LoRA there, or lora='factors'"
        )
    return LowRank(
        layer,
        float(layer.scaling[adapter]),
        parts=parts,
        experts=experts > 1,
        embedding=embedding,
        magnitude=None if magnitude is None else names[id(magnitude)],
        magnitude_shape=None if magnitude is None else full_shape(magnitude),
    )


def full_shape(parameter: Any) -> Size:
    """A parameter's own shape; ZeRO-3 leaves an empty one in its place."""
    return Size(getattr(parameter, "ds_shape", parameter.shape))


def _magnitude(layer: Any, adapter: str) -> Any:
    held = getattr(layer, "lora_magnitude_vector", {})
    return held[adapter].weight if adapter in held else None


def _weight(factor: Any) -> Any:
    """A factor's matrix: PEFT keeps it as a parameter, or as the weight of a layer beside a bias."""
    return factor.weight if isinstance(factor, nn.Module) else factor


def _parameters(held: Any) -> Iterator[Any]:
    if isinstance(held, nn.Module):
        yield from held.parameters()


def _refuse_shared(groups: list[Group], model: nn.Module) -> None:
    """Refuse factors of several layers: a merge of one layer would change the others."""
    parameters = dict(model.named_parameters())
    seen: dict[Any, str] = {}
    for group in groups:
        for name in group.factors:
            data = parameters[name].data
            on_device = isinstance(data, torch.Tensor) and data.device.type != "meta" and data.numel()
            place = data.data_ptr() if on_device and type(data) is torch.Tensor else name
            other = seen.setdefault(place, group.layer)
            if other != group.layer:
                problem = f"{group.layer} and {other} share factors (ensure_weight_tying)"
                raise ConfigError("lora", problem, "adapters that are not tied")


def _concerned(group: Group, concerns: Callable[[str], bool]) -> bool:
    taken = [name for name in group.names if concerns(name)]
    if taken and len(taken) < len(group.names):
        left = next(name for name in group.names if name not in taken)
        problem = f"the patterns take {taken[0]} without {left}, which make one update together"
        raise ConfigError("include", problem, "patterns that take all factors of a layer, or lora='factors'")
    return bool(taken)
