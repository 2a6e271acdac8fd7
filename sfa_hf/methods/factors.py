"""What methods about the factors A and B of LoRA have in common."""

from __future__ import annotations

from typing import ClassVar

from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import PLAIN, Method


class OfFactors(Method):
    """A method that trains adapters of updates s B A alone, and fine-tunes plainly on the first task."""

    NEEDS_ADAPTERS: ClassVar[bool] = True

    def check_adapters(self, options: AdapterOptions, after_task: str) -> None:
        del after_task
        if more := options.more_than_products:
            problem = f"has {more}, and {self.name} is about the factors A and B of linear layers"
            raise ConfigError("name", problem, f"no model.peft.{more}")

    @property
    def first_training(self) -> str | None:
        return PLAIN
