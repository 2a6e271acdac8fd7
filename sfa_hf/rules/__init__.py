"""How two or more tensors become one. Pure tensor functions: no I/O, no engine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfa_hf.rules.average import average

Rule = Callable[[Tensor, Tensor, float], None]
"""A rule of a merge in training: ``rule(theta, theta_o, beta)`` edits theta in place."""

TRAINING_RULES: dict[str, Rule] = {"average": average}

__all__ = ["TRAINING_RULES", "Rule", "average"]
