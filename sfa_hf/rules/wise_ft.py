"""WiSE-FT: between a base and one model that was fine-tuned from it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from sfa_hf.rules.base import Block, Fraction, MergeRule, Survey


class WiseFT(MergeRule):
    r"""(1 - \alpha) \theta_base + \alpha \theta (WiSE-FT, arXiv 2109.01903).

    Attributes:
        alpha: weight of the fine-tuned model; 1 - \beta of SFA with p = 1.
    """

    name: ClassVar[str] = "wise_ft"
    needs_base: ClassVar[bool] = True
    exactly: ClassVar[int | None] = 1

    alpha: Fraction = 0.5

    def merge(self, block: Block, survey: Survey | None) -> Tensor:  # noqa: ARG002 - has no survey
        """Interpolate one block."""
        assert block.base is not None
        return block.base.lerp(block.models[0], self.alpha)
