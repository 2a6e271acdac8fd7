r"""\theta and \theta_o as a merge rule takes them, and what it must know of sharded tensors first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.rules import Block, MergeRule, Survey


def training_block(rule: MergeRule, name: str, offset: int, theta: Tensor, theta_o: Tensor) -> Block:
    r"""Put \theta and \theta_o where a rule looks for them: two models, or a model and its base."""
    if rule.needs_base:
        return Block(name, offset, [theta], theta_o)
    return Block(name, offset, [theta, theta_o])


def concluded_surveys(
    engine: Engine,
    rule: MergeRule,
    names: Sequence[str],
    shards: Sequence[Shard],
    blocks: Callable[[], Iterable[Block]],
) -> dict[str, Survey]:
    r"""Run all passes of a rule's surveys over the blocks of all ranks; a collective call.

    Args:
        engine: adds up the measures, which every rank then concludes alike.
        rule: its scope says whether there is a survey per tensor, or one of all tensors together.
        names: of all merged parameters, in one order on all ranks.
        shards: this rank's part of them.
        blocks: walks over \theta and \theta_o of the shards.

    Returns:
        The survey of each parameter; none where the rule has no surveys.
    """
    if rule.needs_importances or type(rule).survey is MergeRule.survey:
        return {}  # what a rule would ask of importances is in the weights of the merge
    # On a rank without any part of a tensor, the measure of nothing stands for its part.
    nothing = training_block(rule, "", 0, *torch.empty(2, 0, dtype=torch.float64))
    numel = _numel(engine, names, shards)
    groups = [[name] for name in names if numel[name]] if rule.scope == "tensor" else [list(names)]
    opened = [
        (group, survey)
        for group in groups
        if (survey := rule.survey(len(nothing.models), sum(map(numel.__getitem__, group)), torch.float64))
    ]
    of = {name: survey for group, survey in opened for name in group}
    for _ in range(opened[0][1].passes if opened else 0):
        totals = {id(survey): survey.measure(nothing) for _, survey in opened}
        for block in blocks():
            survey = of[block.name]
            totals[id(survey)] += survey.measure(block).cpu()
        flat = torch.cat([total.flatten().double() for total in totals.values()])
        summed = engine.sum_over_shards(flat).split([total.numel() for total in totals.values()])
        for (_, survey), values in zip(opened, summed, strict=True):
            total = totals[id(survey)]
            survey.conclude(values.view(total.shape).to(total.dtype))
    return of


def _numel(engine: Engine, names: Sequence[str], shards: Sequence[Shard]) -> dict[str, int]:
    """Elements of each parameter; under ZeRO-3 the parameter itself does not say."""
    own = {shard.name: shard.data.numel() for shard in shards}
    local = torch.tensor([own.get(name, 0) for name in names], dtype=torch.float64)
    return dict(zip(names, map(int, engine.sum_over_shards(local).tolist()), strict=True))
