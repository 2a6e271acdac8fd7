"""The rules over tensors in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sfa_hf.rules.base import BLOCK, Block, MergeRule, Survey

StateDict = Mapping[str, Tensor]


@torch.no_grad()
def merge_state_dicts(
    rule: MergeRule,
    models: Sequence[StateDict],
    base: StateDict | None = None,
    importances: Sequence[StateDict] = (),
) -> dict[str, Tensor]:
    """Merge state dicts as :func:`sfa_hf.checkpoints.merge_checkpoints` merges files.

    Args:
        rule: how.
        models: with the same names and shapes each; float32 or float64, which is what is computed in.
        base: for rules on task vectors.
        importances: one a model, for rules that weigh by them.
    """
    rule.check(len(models))
    whole = _Tensors(models, base, importances)
    shared = None
    if rule.scope == "vector":
        first = next(iter(models[0].values()))
        shared = rule.survey(len(models), sum(t.numel() for t in models[0].values()), first.dtype)
        conclude_survey(shared, lambda: (block for name in models[0] for block in whole.blocks(name)))
    return {name: whole.merged(name, rule, shared) for name in models[0]}


def conclude_survey(survey: Survey | None, blocks: Callable[[], Iterator[Block]]) -> None:
    """Run all passes of a survey, where there is one, over all blocks."""
    for _ in range(survey.passes if survey else 0):
        assert survey is not None
        measures = map(survey.measure, blocks())
        total = next(measures)
        for measure in measures:
            total += measure
        survey.conclude(total)


class _Tensors:
    def __init__(
        self, models: Sequence[StateDict], base: StateDict | None, importances: Sequence[StateDict]
    ) -> None:
        self._models, self._base, self._importances = models, base, importances

    def blocks(self, name: str) -> Iterator[Block]:
        for offset in range(0, self._models[0][name].numel(), BLOCK):
            yield Block(
                name,
                offset,
                [_part(model[name], offset) for model in self._models],
                None if self._base is None else _part(self._base[name], offset),
                [_part(each[name], offset) for each in self._importances],
            )

    def merged(self, name: str, rule: MergeRule, shared: Survey | None) -> Tensor:
        tensor = self._models[0][name]
        survey = shared
        if rule.scope == "tensor" and tensor.numel():
            survey = rule.survey(len(self._models), tensor.numel(), tensor.dtype)
            conclude_survey(survey, lambda: self.blocks(name))
        parts = [rule.merge(block, survey) for block in self.blocks(name)]
        return torch.cat(parts).view(tensor.shape) if parts else tensor.clone()


def _part(tensor: Tensor, offset: int) -> Tensor:
    return tensor.reshape(-1)[offset : offset + BLOCK]
