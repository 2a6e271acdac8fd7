"""Plain sequential fine-tuning: each task starts from the last one's weights, and nothing else happens."""

from __future__ import annotations

from typing import Literal

from sfa_hf.methods.base import PLAIN, Method


class Sequential(Method):
    """The baseline that forgets."""

    name: Literal["sequential"] = "sequential"

    @property
    def first_training(self) -> str | None:
        return PLAIN
