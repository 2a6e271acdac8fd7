"""What the methods have in common that merge saved models after a task, by a rule over checkpoints."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sfa_hf.config.declared import key_of
from sfa_hf.methods.base import CARRY, Method, Stage
from sfa_hf.rules import known_rules


class MergesSaved(Method):
    """A method that merges by a rule over checkpoints, whose options it takes."""

    RULE: ClassVar[str]

    def recipe(self, stage: Stage, models: list[str], base: str) -> dict[str, Any]:
        """The merge of ``models`` over ``base``; names, dtypes and tokenizer are those of this stage's."""
        options = {key_of(name): value for name, value in self.taken(known_rules()[self.RULE]).items()}
        return {
            "models": models,
            "base": base,
            "rule": {"name": self.RULE, **options},
            "config_from": str(stage.trained),
        }


class TaskVectors(MergesSaved):
    r"""Adds up what each task changed: \tau_k = \theta_k - \theta_base, combined by a rule.

    Attributes:
        vectors: how \theta_k is trained. "sequential": from \theta_{k-1} as training left it, never from a
            merged model; \tau_k then holds what is left of the tasks before. "independent": from the base.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = CARRY

    vectors: Literal["sequential", "independent"] = "independent"

    def start(self, stage: Stage) -> str:
        sequential = self.vectors == "sequential" and stage.past
        return str(stage.past[-1].trained) if sequential else stage.base

    def deployed(self, stage: Stage) -> dict[str, Any]:
        models = [str(each.trained) for each in (*stage.past, stage)]
        return self.recipe(stage, models, stage.base)
