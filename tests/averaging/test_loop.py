r"""SFA in a loop of one's own, on one process: the merges, the log, the ends, and what a resume needs."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_training import rows, tiny_model, weights, worst_ulp
from torch import Tensor, nn

import sfa_hf
from sfa_hf import SFA, SFACallback
from sfa_hf.errors import ConfigError

BETA = 0.3
HALF_AN_ULP = 0.5 + 1e-6


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def batch(step: int) -> dict[str, Tensor]:
    chosen = rows(64)[4 * step :][:4]
    return {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}


class Loop:
    """A model, its optimizer, SFA, and the weights just before and after each ``sfa.step()``."""

    def __init__(self, sfa: SFA, model: nn.Module | None = None) -> None:
        self.sfa, self.model = sfa, model or tiny_model()
        self.optimizer = adamw(self.model)
        self.before: dict[int, dict[str, Tensor]] = {0: weights(self.model)}
        self.after: dict[int, dict[str, Tensor]] = {}
        self.records: dict[int, Any] = {}

    def attach(self) -> Loop:
        self.sfa.attach(self.model, self.optimizer)
        return self

    def take(self, *steps: int) -> Loop:
        for step in steps:
            self.model(**batch(step)).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.before[step] = weights(self.model)
            self.records[step] = self.sfa.step()
            self.after[step] = weights(self.model)
        return self

    def save(self) -> dict[str, Any]:
        states = {"model": self.model, "optimizer": self.optimizer, "sfa": self.sfa}
        path = Path(self.folder, "checkpoint.pt")
        torch.save({name: each.state_dict() for name, each in states.items()}, path)
        return torch.load(path)

    folder = "."

    def changed(self) -> list[int]:
        return [step for step, after in self.after.items() if not same(self.before[step], after)]


def same(these: dict[str, Tensor], those: dict[str, Tensor]) -> bool:
    return all(those[name].equal(values) for name, values in these.items())


def test_each_merge_is_the_average_in_float64_and_is_logged() -> None:
    told: list[tuple[int, float]] = []
    sfa = SFA(BETA, 0.5, total_steps=5, log=lambda values, step: told.append((step, values["sfa/merge"])))
    loop = Loop(sfa).attach().take(1, 2, 3, 4, 5)
    assert loop.changed() == [3, 5]
    assert told == [(3, 1), (5, 2)]
    for step in (3, 5):
        for name, theta_o in loop.before[0].items():
            assert worst_ulp(loop.before[step][name], theta_o, loop.after[step][name], BETA) <= HALF_AN_ULP
        squares = sum((w - loop.before[0][n]).double().square().sum() for n, w in loop.before[step].items())
        assert loop.records[step]["sfa/drift_before"] == pytest.approx(float(squares) ** 0.5, rel=1e-6)
    assert loop.records[1] is None
    with pytest.raises(ConfigError, match="total_steps: 5, and this is step 6"):
        loop.take(6)


def test_options_are_those_of_the_callback(tmp_path: Path) -> None:
    sfa = SFA(BETA, total_steps=2, merge_every=1, exclude="embed", optimizer_state="reset")
    loop = Loop(sfa).attach().take(1)
    left = {name for name, values in loop.before[1].items() if loop.after[1][name].equal(values)}
    assert left == {name for name in left if "embed" in name} != set()
    moments = {name: loop.optimizer.state[p]["exp_avg"].any() for name, p in loop.model.named_parameters()}
    assert {name for name, found in moments.items() if found} == left
    with pytest.raises(ConfigError, match="beta: 2 is not the weight of an average"):
        SFA(2, total_steps=2)
    with pytest.raises(ConfigError, match="total_steps: 0 is not a number of steps"):
        SFA(total_steps=0)
    for options in ({"anchor_device": "disk"}, {"rule": "fisher", "anchor_moments": "constant"}):
        with pytest.raises(ConfigError, match="output_dir: None beside"):
            SFA(total_steps=2, **options)
    fisher = SFA(BETA, total_steps=2, output_dir=tmp_path, rule="fisher", anchor_moments="constant")
    Loop(fisher).attach().take(1, 2)
    assert (tmp_path / "_second_moments" / "facts.json").is_file()
    assert set(signature(SFACallback).parameters) < set(signature(SFA).parameters)


def test_a_loop_that_stops_early_ends_with_one_merge() -> None:
    loop = Loop(SFA(BETA, merge_every=2, total_steps=9)).attach().take(1, 2)
    assert loop.sfa.end() is None  # step 2 merged
    loop = Loop(SFA(BETA, merge_every=2, total_steps=9)).attach().take(1)
    before = weights(loop.model)
    assert loop.sfa.end()["sfa/merge"] == 1
    assert not same(before, weights(loop.model))
    assert loop.sfa.end() is None


@pytest.mark.parametrize("way", ["attach, then load", "load, then attach", "an anchor that is named"])
def test_a_resumed_loop_ends_as_the_whole_one(tmp_path: Path, way: str) -> None:
    tiny_model().save_pretrained(tmp_path / "start")
    named = {"anchor": tmp_path / "start"} if "named" in way else {}
    saves = {"output_dir": tmp_path} if way == "load, then attach" else {}

    def sfa() -> SFA:
        return SFA(BETA, merge_every=2, total_steps=5, **named, **saves)

    first = Loop(sfa()).attach().take(1, 2, 3)
    first.folder = tmp_path
    checkpoint = first.save()
    whole = first.take(4, 5)

    again = Loop(sfa())
    if way == "attach, then load":
        again.attach()
    again.model.load_state_dict(checkpoint["model"])
    again.optimizer.load_state_dict(checkpoint["optimizer"])
    again.sfa.load_state_dict(checkpoint["sfa"])
    if way != "attach, then load":
        again.attach()
    again.take(4, 5)
    assert same(whole.after[5], again.after[5])
    assert again.records[4]["sfa/merge"] == 2


def test_another_anchor_or_state_is_refused(tmp_path: Path) -> None:
    first = Loop(SFA(BETA, total_steps=4)).attach().take(1, 2)
    state = first.sfa.state_dict()
    other = "anchor: .* is not the anchor that this training began with"
    for model in (tiny_model(seed=1), first.model):
        again = Loop(SFA(BETA, total_steps=4), model)
        again.sfa.load_state_dict(state)
        with pytest.raises(ConfigError, match=other):
            again.attach()
        with pytest.raises(ConfigError, match=other):
            Loop(SFA(BETA, total_steps=4), model).attach().sfa.load_state_dict(state)
    for change, problem in (
        ({"patterns": {"include": "head", "exclude": None}}, "include: other parameters"),
        ({"step": 5}, "total_steps: 4, but the checkpoint was written after step 5"),
    ):
        with pytest.raises(ConfigError, match=problem):
            SFA(BETA, total_steps=4).load_state_dict({**state, **change})
    with pytest.raises(ConfigError, match="state_dict: step missing"):
        SFA(BETA, total_steps=4).load_state_dict({key: state[key] for key in state if key != "step"})
    with pytest.raises(RuntimeError, match="attach"):
        SFA(BETA, total_steps=4).step()


def test_accelerate_saves_and_loads_it(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)

    def start() -> Loop:
        loop = Loop(SFA(BETA, merge_every=2, total_steps=4))
        loop.model, loop.optimizer = accelerator.prepare(loop.model, loop.optimizer)
        accelerator._custom_objects, accelerator._models = [], [loop.model]
        accelerator._optimizers = [loop.optimizer]
        accelerator.register_for_checkpointing(loop.sfa)
        return loop.attach()

    whole = start().take(1, 2, 3)
    accelerator.save_state(str(tmp_path / "state"))
    whole.take(4)
    again = start()
    accelerator.load_state(str(tmp_path / "state"))
    assert same(whole.after[4], again.take(4).after[4])


def test_edits_last_and_are_open_while_the_block_lasts() -> None:
    loop = Loop(SFA(total_steps=3))
    halves = {name: values / 2 for name, values in weights(loop.model).items()}
    with sfa_hf.edit(loop.model, loop.optimizer) as shards:
        assert {shard.name for shard in shards} == set(halves)
        for shard in shards:
            shard.data.mul_(0.5)
    assert same(halves, weights(loop.model))
    with (
        pytest.raises(NotImplementedError, match="optimizer that steps from weights of its own"),
        sfa_hf.edit(loop.model, Undoes(loop.model.parameters(), lr=1e-2)),
    ):
        pytest.fail("opened")


class Undoes(torch.optim.SGD):
    """Steps from weights of its own."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    own = self.state[p].setdefault("own", p.detach().clone())
                    own.add_(p.grad, alpha=-group["lr"])
                    p.data.copy_(own)
