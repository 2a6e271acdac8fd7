"""What the methods have in common that merge saved models after a task, by a rule over checkpoints."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.errors import ConfigError
from sfa_hf.methods.base import Method, Stage
from sfa_hf.rules import known_rules


class MergesSaved(Method):
    """A method whose options, but for ``OWN``, are those of the rule ``RULE``, which checks them."""

    RULE: ClassVar[str]
    OWN: ClassVar[frozenset[str]] = frozenset()

    def check(self) -> None:
        kind = known_rules()[self.RULE]
        try:
            kind.model_validate(self._rule_options())
        except ValidationError as error:
            raise as_config_error(error, "method", kind) from error
        except ConfigError as error:
            raise ConfigError(f"method.{error.key}", error.problem, error.right) from error

    def recipe(self, stage: Stage, models: list[str], base: str) -> dict[str, Any]:
        """The merge of ``models`` over ``base``; names, dtypes and tokenizer are those of this stage's."""
        return {
            "models": models,
            "base": base,
            "rule": {"name": self.RULE, **self._rule_options()},
            "config_from": str(stage.trained),
        }

    def _rule_options(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude={"name", *self.OWN})


class TaskVectors(MergesSaved):
    r"""Adds up what each task changed: \tau_k = \theta_k - \theta_base, combined by a rule.

    Attributes:
        vectors: how \theta_k is trained. "sequential": from \theta_{k-1} as training left it, never from a
            merged model; \tau_k then holds what is left of the tasks before. "independent": from the base.
    """

    OWN: ClassVar[frozenset[str]] = frozenset({"vectors"})

    vectors: Literal["sequential", "independent"] = "independent"

    def start(self, stage: Stage) -> str:
        sequential = self.vectors == "sequential" and stage.past
        return str(stage.past[-1].trained) if sequential else stage.base

    def deployed(self, stage: Stage) -> dict[str, Any]:
        models = [str(each.trained) for each in (*stage.past, stage)]
        return self.recipe(stage, models, stage.base)
