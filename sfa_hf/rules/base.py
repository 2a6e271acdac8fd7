"""What a merge rule is: its options, what it must know first, and how a block is merged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sfa_hf.errors import ConfigError

BLOCK = 2**17
"""Entries in a block: its copies in fp32 for a few models stay in a core's cache (512 KiB each)."""

Scope = Literal["tensor", "vector"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Block:
    r"""The same entries of one tensor in every model: flat and of one dtype, a part of the tensor.

    Attributes:
        name: of the tensor.
        offset: where the block starts in the flattened tensor.
        models: \theta_k, one per model.
        base: \theta_base, where the recipe names one.
        importances: F_k, one per model, where the rule weights by them.
    """

    name: str
    offset: int
    models: Sequence[Tensor]
    base: Tensor | None = None
    importances: Sequence[Tensor] = ()

    def task_vectors(self) -> list[Tensor]:
        r"""\tau_k = \theta_k - \theta_base."""
        assert self.base is not None
        return [theta - self.base for theta in self.models]


class Survey(ABC):
    """What must be known of a whole tensor, or of all tensors together, before one entry can be merged.

    It is found in ``passes`` passes over all blocks. In each the measures of all blocks, in any order and on
    any thread or process, are added up, and their sum concludes the pass.
    """

    passes: int = 1

    @abstractmethod
    def measure(self, block: Block) -> Tensor:
        """Measure one block, into a tensor of one shape for all blocks, of zeros for an empty one.

        Changes nothing.
        """

    @abstractmethod
    def conclude(self, total: Tensor) -> None:
        """Take in the sum of a pass's measures."""


class MergeRule(BaseModel, ABC):
    """One way to merge models: a file of ``sfa_hf/rules/``. Its fields are its options in a recipe.

    Attributes:
        name: by which a recipe, and ``SFACallback`` where it works in training, choose it.
        needs_base: whether it works on task vectors, the differences from a base.
        needs_importances: whether it weights by a second tensor per model, such as its Fisher information.
        exactly: how many models it takes, without the base; None is any number from one on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    name: ClassVar[str]
    needs_base: ClassVar[bool] = False
    needs_importances: ClassVar[bool] = False
    exactly: ClassVar[int | None] = None

    @property
    def scope(self) -> Scope:
        """Over what a survey goes: each tensor, or the vector of all merged tensors."""
        return "tensor"

    def check(self, models: int) -> None:
        """Raise ConfigError unless the options fit that number of models."""

    def survey(self, models: int, numel: int, dtype: torch.dtype) -> Survey | None:  # noqa: ARG002 - for rules with one
        """Start what has to be known first; None where every entry stands for itself.

        Args:
            models: how many there are, without the base.
            numel: entries that it will go over.
            dtype: of the blocks.
        """
        return None

    @abstractmethod
    def merge(self, block: Block, survey: Survey | None) -> Tensor:
        """Merge one block, given the survey that is concluded; may overwrite the block's tensors."""

    def towards(self, block: Block, survey: Survey | None, beta: float | Tensor) -> Tensor:
        r"""Move \theta towards \theta_o: one block of a merge in training, in fp64.

        A rule that defines it works in training, with the defaults of its options. What it returns must
        depend on neither the size nor the order of the blocks: each process has others.

        Args:
            block: \theta and \theta_o as the two models; of a rule with ``needs_base`` \theta as the model
                and \theta_o as the base. It may overwrite \theta, but not \theta_o.
            survey: concluded over the blocks of all processes; None for a rule with ``needs_importances``,
                whose F are in ``beta``.
            beta: \beta, the weight of \theta_o: one number, or for a rule with ``needs_importances`` one per
                entry.
        """
        raise NotImplementedError(f"the rule {self.name} is one for saved models alone")

    @classmethod
    def trains(cls) -> bool:
        """Whether it works in training."""
        return cls.towards is not MergeRule.towards


def weights_or_equal(weights: Sequence[float] | None, models: int, each: float) -> list[float]:
    """The given weights, or ``each`` for every model."""
    return [each] * models if weights is None else list(weights)


def check_count(weights: Sequence[float] | None, models: int) -> None:
    """Raise ConfigError unless there is a weight for every model."""
    if weights is not None and len(weights) != models:
        raise ConfigError("weights", f"holds {len(weights)} for {models} models", "one weight a model")
