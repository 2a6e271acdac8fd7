"""SLERP: along the great circle between two models, tensor by tensor."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from sfa_hf.rules.average import weighted_sum
from sfa_hf.rules.base import Block, Fraction, MergeRule, Survey

# Below it sin(x) and x agree to fp64's precision in the ratios, and the line is the great circle.
_SMALLEST_SINE = 1e-6


class InnerProducts(Survey):
    """<a, a>, <b, b> and <a, b> over one tensor, in fp64."""

    def __init__(self) -> None:
        self._products = torch.zeros(3, dtype=torch.float64)

    def measure(self, block: Block) -> Tensor:
        """Return a block's three inner products."""
        a, b = (model.double() for model in block.models)
        return torch.stack([a @ a, b @ b, a @ b])

    def conclude(self, total: Tensor) -> None:
        """Keep the sums over the tensor."""
        self._products = total

    def angle(self) -> float:
        """Angle between a and b in radians, 0 where one of them is zero."""
        aa, bb, ab = self._products.tolist()
        length = math.sqrt(aa) * math.sqrt(bb)
        return math.acos(max(-1.0, min(1.0, ab / length))) if length > 0 else 0.0


class Slerp(MergeRule):
    r"""sin((1-t) \Omega)/sin(\Omega) a + sin(t \Omega)/sin(\Omega) b, \Omega the angle between a and b.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", for unit vectors; the tensors keep
    their lengths here, as in common tools. Parallel, opposite and zero tensors have no one great circle:
    there it is (1-t) a + t b.

    Attributes:
        t: 0 gives the first model, 1 the second.
    """

    name: ClassVar[str] = "slerp"
    exactly: ClassVar[int | None] = 2

    t: Fraction = 0.5

    def survey(self, models: int, numel: int, dtype: torch.dtype) -> Survey:  # noqa: ARG002 - is the same for all
        """Start on the angle."""
        return InnerProducts()

    def merge(self, block: Block, survey: Survey | None) -> Tensor:
        """Combine one block of a and b."""
        return self.towards(block, survey, self.t)

    def towards(self, block: Block, survey: Survey | None, beta: float | Tensor) -> Tensor:
        r"""Go the part \beta of the angle from \theta to \theta_o."""
        assert isinstance(survey, InnerProducts)
        assert isinstance(beta, float)
        return weighted_sum(block.models, slerp_weights(survey.angle(), beta))


def slerp_weights(angle: float, t: float) -> tuple[float, float]:
    """Weights of a and b at ``t`` of an angle in radians."""
    sine = math.sin(angle)
    if sine < _SMALLEST_SINE:
        return 1 - t, t
    return math.sin((1 - t) * angle) / sine, math.sin(t * angle) / sine
