"""Rules that must know whole tensors, or all of them, merge shards as they would merge the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.distributed as dist
from harness import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from zero_rows import Row, full_masters, initial_model, quiet_deepspeed, start

from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines import Engine, Shard, attach
from sfa_hf.rules import Block, MergeRule, Slerp, Survey, merge_state_dicts
from sfa_hf.rules.base import Fraction, Scope
from sfa_hf.rules.slerp import InnerProducts
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

BETA = 0.3
ROWS = [Row(1, "fp32"), Row(3, "fp32")]


class AsLong(MergeRule):
    """The average, as long as the first model is over all tensors together."""

    name: ClassVar[str] = "as_long"
    t: Fraction = BETA

    @property
    def scope(self) -> Scope:
        return "vector"

    def survey(self, models: int, numel: int, dtype: torch.dtype) -> Survey:
        assert numel == sum(w.numel() for w in trained(initial_model(ROWS[0])).values())
        return InnerProducts()

    def merge(self, block: Block, survey: Survey | None) -> Tensor:
        return self.towards(block, survey, self.t)

    def towards(self, block: Block, survey: Survey | None, beta: float | Tensor) -> Tensor:
        aa, bb, ab = survey._products.tolist()
        squared = (1 - beta) ** 2 * aa + beta**2 * bb + 2 * beta * (1 - beta) * ab
        return block.models[0].lerp(block.models[1], beta) * (aa / squared) ** 0.5


def trained(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad and p.numel()}


def test_sharded_merges_are_those_of_the_whole_model() -> None:
    """Bound: an ulp of fp32 of each tensor's largest weight."""
    for of_rank in run_ranks(errors_in_rows, 2):
        assert len(of_rank) == 2 * (len(ROWS) + 1)
        for label, error in of_rank.items():
            assert error < 2**-23, label


def errors_in_rows() -> dict[str, float]:
    found = {}
    with quiet_deepspeed():
        for rule in (Slerp(), AsLong()):
            for row in ROWS:
                trainer = start(row)
                engine = attach(trainer.module, trainer.optimizer)
                before = {name: w for name, w in full_masters(trainer, row).items() if w.numel()}
                exact = merged(engine, rule, before)
                found[f"{rule.name} {row.label()}"] = error(exact, full_masters(trainer, row))
            model = fully_shard(
                initial_model(ROWS[0]), mesh=init_device_mesh("cpu", (dist.get_world_size(),))
            )
            engine = attach(model, torch.optim.SGD(model.parameters()))
            exact = merged(engine, rule, whole(model))
            found[f"{rule.name} fsdp2"] = error(exact, whole(model))
    return found


def whole(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.full_tensor() for name, p in trained(model).items()}


def merged(engine: Engine, rule: MergeRule, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge the shards; return what the rule makes of the whole tensors in fp64."""
    generator = torch.Generator().manual_seed(1)
    theta_o = {n: w + torch.empty_like(w).normal_(generator=generator) for n, w in before.items()}

    def read(shard: Shard) -> Tensor:
        return theta_o[shard.name].flatten()[shard.offset : shard.offset + shard.data.numel()]

    shards = [shard for shard in engine.shards() if shard.name in before]
    anchor = ShardBuffer(shards, read, open_store("cpu", shards, torch.float32, Path()))
    merge(engine, shards, anchor, rule=rule, weights=Weights(BETA), seed=(0,), names=list(before))
    exact = rule.model_copy(update={"t": BETA})
    models = [{name: w.double() for name, w in weights.items()} for weights in (before, theta_o)]
    return merge_state_dicts(exact, models)


def error(exact: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    return max(((found[name].double() - w).abs().max() / w.abs().max()).item() for name, w in exact.items())
