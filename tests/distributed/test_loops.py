"""SFA in loops of one's own, ``sfa_hf.edit``, and what becomes of other edits, on real engines."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
import torch.distributed as dist
from deepspeed.utils import safe_set_full_fp32_param
from harness import run_ranks
from test_fsdp2 import full, local_batch, sharded
from tiny_training import tiny_model, worst_ulp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from zero_rows import DTYPES, Row, full_copies, full_masters, logits_of, quiet_deepspeed, start, train_step

import sfa_hf
from sfa_hf import SFA

BETA = 0.3
Weights = dict[str, Tensor]
ROWS = {
    "zero1": Row(1, "bf16", sum_in_fp32=True),
    "zero2": Row(2, "bf16"),
    "zero3": Row(3, "bf16"),
    "zero3 persistent": Row(3, "bf16", persistence=10**6),
}


class Zero:
    """A training under DeepSpeed."""

    def __init__(self, row: Row) -> None:
        self.row, self.engine = row, start(row)
        self.model, self.optimizer = self.engine, self.engine.optimizer

    def step(self, number: int) -> None:
        train_step(self.engine, self.row, number)

    def masters(self) -> Weights:
        return full_masters(self.engine, self.row)

    def stale(self) -> list[str]:
        """Names whose weights that compute are others than the masters."""
        masters, copies = self.masters(), full_copies(self.engine)
        return [n for n, w in masters.items() if not copies[n].equal(w.to(DTYPES[self.row.precision]))]

    def save(self, folder: Path, sfa: SFA) -> None:
        self.engine.save_checkpoint(str(folder), client_state={"sfa": sfa.state_dict()})

    def load(self, folder: Path) -> dict[str, Any]:
        return self.engine.load_checkpoint(str(folder))[1]["sfa"]

    def idle(self) -> None:
        """A step with learning rate 0: what it changes was not there to stay."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self.step(7)


class ByHand:
    """A training of plain torch."""

    def __init__(self, fsdp: bool) -> None:
        self.inner = sharded(tiny_model()) if fsdp else tiny_model()
        self.parameters = dict(self.inner.named_parameters())
        self.optimizer = torch.optim.AdamW(self.inner.parameters(), lr=1e-2)
        self.model = self.inner if fsdp else DistributedDataParallel(self.inner)

    def step(self, number: int) -> None:
        self.model(**local_batch(number))["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():  # an evaluation, which leaves the root's parameters gathered under FSDP2
            self.model(**local_batch(0))

    def masters(self) -> Weights:
        if any(isinstance(p, DTensor) for p in self.parameters.values()):
            return full(self.parameters)
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def stale(self) -> list[str]:
        whole = tiny_model()
        whole.load_state_dict(self.masters())
        with torch.no_grad():
            seen, wanted = (each(**local_batch(0))["loss"].item() for each in (self.model, whole))
        return [] if abs(seen - wanted) < 1e-5 else [f"loss {seen}, not {wanted}"]

    def save(self, folder: Path, sfa: SFA) -> None:
        states = [self.inner.state_dict(), self.optimizer.state_dict(), sfa.state_dict()]
        torch.save(states, f"{folder}-{dist.get_rank()}.pt")

    def load(self, folder: Path) -> dict[str, Any]:
        model, optimizer, sfa = torch.load(f"{folder}-{dist.get_rank()}.pt", weights_only=False)
        self.inner.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        return sfa

    def idle(self) -> None:
        self.optimizer.param_groups[0]["lr"] = 0.0
        self.step(7)


def trainings() -> dict[str, Callable[[], Zero | ByHand]]:
    zero = {name: (lambda row=row: Zero(row)) for name, row in ROWS.items()}
    return {**zero, "ddp": lambda: ByHand(fsdp=False), "fsdp2": lambda: ByHand(fsdp=True)}


def same(these: Weights, those: Weights) -> bool:
    return all(those[name].equal(values) for name, values in these.items())


def merged_and_resumed(name: str, folder: Path) -> None:
    """A loop merges as in float64, in every copy; resumed from its checkpoint it ends with the same bits."""
    told: list[int] = []
    whole = trainings()[name]()
    sfa = SFA(BETA, merge_every=2, total_steps=3, log=lambda _, step: told.append(step))
    sfa.attach(whole.model, whole.optimizer)
    theta_o = whole.masters()
    whole.step(1)
    assert sfa.step() is None
    whole.save(folder / name, sfa)
    whole.step(2)
    before = whole.masters()
    assert sfa.step() is not None
    after = whole.masters()
    assert max(worst_ulp(before[n], theta_o[n], after[n], BETA) for n in before) <= 1
    assert whole.stale() == []
    whole.step(3)
    sfa.step()
    assert told == ([2, 3] if dist.get_rank() == 0 else [])

    again = trainings()[name]()
    sfa = SFA(BETA, merge_every=2, total_steps=3)
    sfa.attach(again.model, again.optimizer)
    sfa.load_state_dict(again.load(folder / name))
    for step in (2, 3):
        again.step(step)
        sfa.step()
    assert same(whole.masters(), again.masters())


def edited(name: str, folder: Path) -> None:
    """An edit is in the masters and in every copy at once, and a step with learning rate 0 keeps it."""
    training = trainings()[name]()
    training.step(1)
    halves = {name: values / 2 for name, values in training.masters().items()}
    with sfa_hf.edit(training.model, training.optimizer) as shards:
        for shard in shards:
            shard.data.mul_(0.5)
    assert same(halves, training.masters())
    assert training.stale() == []
    if name in ROWS:  # AdamW's decay goes with the learning rate
        training.idle()
        assert same(halves, training.masters())
        assert training.stale() == []


def in_place(name: str, folder: Path) -> None:
    """``p.data`` under ZeRO-1 and 2, gathered parameters under ZeRO-3: the next step takes the edit back."""
    training = Zero(ROWS[name])
    training.step(1)
    before = full_copies(training.engine)
    _edit_copies(training.engine.module, 0.5)
    seen = full_copies(training.engine)
    assert all(seen[n].equal(w / 2) for n, w in before.items())
    training.idle()
    assert same({n: before[n] for n in training.masters()}, full_copies(training.engine))


def masters_alone(name: str, folder: Path) -> None:
    """``safe_set_full_fp32_param``: the evaluation of the same step still sees the old weights."""
    training = Zero(ROWS[name])
    training.step(1)
    logits = logits_of(training.engine)
    masters = training.masters()
    for parameter_name, parameter in training.engine.module.named_parameters():
        if parameter_name in masters and _divides(parameter):
            safe_set_full_fp32_param(parameter, masters[parameter_name] / 2)
    assert not same(masters, training.masters())
    assert logits_of(training.engine).equal(logits)
    assert training.stale() != []
    training.idle()
    assert training.stale() == []


def averages_of_others(name: str, folder: Path) -> None:
    """Under ZeRO-3 a clone of ``p.data`` has no elements; under FSDP2 a model cannot be copied."""
    training = trainings()[name]()
    if name == "zero3":
        training.step(1)
        clones = [p.detach().clone() for p in training.engine.module.parameters()]
        assert {clone.numel() for clone in clones} == {0}
        averaged = torch.optim.swa_utils.AveragedModel(training.engine.module)
        assert {p.numel() for p in averaged.module.parameters()} == {0}
    else:
        with pytest.raises(Exception, match="copy"):
            copy.deepcopy(training.inner)


def edited_while_gathered(name: str, folder: Path) -> None:
    """After an evaluation, FSDP2's root parameters are gathered copies: an edit of them is undone."""
    training = trainings()[name]()
    training.step(1)
    before = training.masters()
    gathered = [p for p in training.inner.parameters() if not isinstance(p, DTensor)]
    assert gathered
    for parameter in gathered:
        parameter.data.mul_(0.5)
    training.inner.reshard()
    assert same(before, training.masters())
    assert training.stale() == []


def _edit_copies(model: nn.Module, factor: float) -> None:
    for parameter in model.parameters():
        partitioned = hasattr(parameter, "ds_id")
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=partitioned):
            if not partitioned or dist.get_rank() == 0:
                parameter.data.mul_(factor)


def _divides(parameter: nn.Parameter) -> bool:
    """Whether ``safe_set_full_fp32_param`` can cut it: it cannot where the last part is padded."""
    return not hasattr(parameter, "ds_id") or parameter.ds_numel % dist.get_world_size() == 0


CHECKS = [
    *((merged_and_resumed, name) for name in (*ROWS, "ddp", "fsdp2")),
    *((edited, name) for name in (*ROWS, "ddp", "fsdp2")),
    *((in_place, name) for name in ROWS),
    (masters_alone, "zero2"),
    (masters_alone, "zero3"),
    (averages_of_others, "zero3"),
    (averages_of_others, "fsdp2"),
    (edited_while_gathered, "fsdp2"),
]


def failures(folder: str) -> dict[str, str]:
    found = {}
    with quiet_deepspeed():
        for check, name in CHECKS:
            own = Path(folder, check.__name__)
            own.mkdir(exist_ok=True)
            try:
                check(name, own)
            except (Exception, pytest.fail.Exception):
                found[f"{check.__name__}, {name}"] = traceback.format_exc()
    return found


@pytest.mark.slow
def test_loops_and_edits_on_every_engine(tmp_path: Path) -> None:
    for found in run_ranks(failures, 2, seconds=300, folder=str(tmp_path)):
        assert not found, "\n".join(f"{row}\n{text}" for row, text in found.items())
