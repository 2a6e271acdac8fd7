"""Plain sequential fine-tuning: each task starts from the last one's weights, and nothing else happens."""

from __future__ import annotations

from typing import ClassVar, Literal

from sfa_hf.adapters.options import AFTER_TASK
from sfa_hf.methods.base import PLAIN, Method


class Sequential(Method):
    """The baseline that forgets."""

    ADAPTERS: ClassVar[tuple[str, ...]] = AFTER_TASK

    name: Literal["sequential"] = "sequential"

    @property
    def first_training(self) -> str | None:
        return PLAIN
