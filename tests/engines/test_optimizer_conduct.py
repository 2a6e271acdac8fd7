"""Optimizers that undo an edit of the weights, or step where none can be made, are told by what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer

from sfa_hf import L2Callback, SFACallback, engines
from sfa_hf.engines.optimizer_conduct import conduct
from tests.tiny_training import Watch, arguments, rows, tiny_model, weights


class Masters(torch.optim.SGD):
    """Steps fp32 masters that lie in its state, as apex and TransformerEngine do."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state.setdefault("master_param", p.detach().float().clone())
                    state["master_param"].sub_(p.grad.float(), alpha=group["lr"])
                    p.copy_(state["master_param"])


class MastersBeside(torch.optim.SGD):
    """The same, with masters in an attribute from the start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.masters = [p.detach().float().clone() for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        for p, master in zip(parameters, self.masters, strict=True):
            if p.grad is not None:
                master.sub_(p.grad.float(), alpha=self.param_groups[0]["lr"])
                p.copy_(master)


class Lookahead(torch.optim.Optimizer):
    """Slow weights around another optimizer; made at the first synchronisation, as timm's are."""

    def __init__(self, base: torch.optim.Optimizer, k: int = 6, alpha: float = 0.5) -> None:
        self.base, self.k, self.alpha, self.taken = base, k, alpha, 0
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.base.step()
        self.taken += 1
        if self.taken % self.k:
            return
        for group in self.param_groups:
            for p in group["params"]:
                slow = self.state[p].setdefault("slow", p.detach().clone())
                slow.lerp_(p, self.alpha)
                p.copy_(slow)


class StepsInBackward(torch.optim.Optimizer):
    """Steps each parameter as soon as its gradient is there, as GaLore does layer by layer."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})
        for group in self.param_groups:
            for p in group["params"]:
                p.register_post_accumulate_grad_hook(self.step_one)

    @torch.no_grad()
    def step_one(self, p: torch.Tensor) -> None:
        p.sub_(p.grad, alpha=self.param_groups[0]["lr"])
        p.grad = None

    def step(self, closure: Any = None) -> None:
        return


class TrustRatio(torch.optim.Optimizer):
    """LAMB's step: along the gradient, as long as a share of the weights."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    length = group["lr"] * p.norm() / p.grad.norm().clamp_min(1e-12)
                    p.sub_(p.grad * length)


class OwnAdamW(torch.optim.AdamW):
    """A class of a stranger's: torch's, under another name."""


class SharedMomentum(torch.optim.Optimizer):
    """Keeps all it needs in attributes that Optimizer's own copy would lose, and wants two dimensions."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.momentum: dict[torch.Tensor, torch.Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    held = self.momentum.setdefault(p, torch.zeros_like(p))
                    held.mul_(0.9).add_(p.grad)
                    if p.ndim == 2:
                        held = nn.functional.normalize(held, dim=1)
                    p.sub_(held, alpha=group["lr"])


UNDO = {
    "masters in the state": Masters,
    "masters in an attribute": MastersBeside,
    "Lookahead": lambda parameters, lr: Lookahead(torch.optim.AdamW(parameters, lr)),
    "Lookahead every 20": lambda parameters, lr: Lookahead(torch.optim.AdamW(parameters, lr), k=20),
}
KEEP = {
    "trust ratio": TrustRatio,
    "subclass of AdamW": OwnAdamW,
    "state of its own": SharedMomentum,
    "AMSGrad": lambda parameters, lr: OwnAdamW(parameters, lr, amsgrad=True, weight_decay=0.1),
}


@pytest.mark.parametrize("make", UNDO.values(), ids=UNDO)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimizer_that_undoes_edits_is_refused_by_its_class(make: Any, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    optimizer = make(model.parameters(), lr=1e-2)
    name = type(optimizer).__qualname__
    with pytest.raises(NotImplementedError, match=f"{name}.*weights of its own.*supported: one process"):
        engines.attach(model, optimizer)


def test_also_one_that_has_stepped_before() -> None:
    model = tiny_model()
    optimizer = Masters(model.parameters(), lr=1e-2)
    for _ in range(2):
        model(**{key: value[None] for key, value in rows(1)[0].items()})["loss"].backward()
        optimizer.step()
    with pytest.raises(NotImplementedError, match=r"Masters.*weights of its own"):
        engines.attach(model, optimizer)


@pytest.mark.parametrize("make", KEEP.values(), ids=KEEP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unknown_optimizer_that_keeps_edits_is_taken_as_it_is(make: Any, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    optimizer = make(model.parameters(), lr=1e-2)
    before, random = weights(model), torch.random.get_rng_state()
    assert engines.attach(model, optimizer).name == "plain"
    assert all(torch.equal(before[name], weight) for name, weight in weights(model).items())
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state
    assert not getattr(optimizer, "momentum", {})
    assert optimizer.param_groups[0]["lr"] == 1e-2
    assert torch.equal(random, torch.random.get_rng_state())


def test_a_patched_step_of_a_scheduler_is_not_the_twins() -> None:
    model = tiny_model()
    optimizer = OwnAdamW(model.parameters(), 1e-2)
    torch.optim.lr_scheduler.LinearLR(optimizer)
    before = weights(model)
    engines.attach(model, optimizer)
    assert all(torch.equal(before[name], weight) for name, weight in weights(model).items())
    assert not optimizer.state


def test_what_steps_inside_backward_can_be_merged_and_not_penalised(tmp_path: Path) -> None:
    def trained(callback: Any, watch: Watch) -> None:
        model = tiny_model()
        optimizer = StepsInBackward(model.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        optimizers = (optimizer, schedule)
        settings = arguments(tmp_path, max_grad_norm=0.0)
        Trainer(
            model, settings, train_dataset=rows(), optimizers=optimizers, callbacks=[callback, watch]
        ).train()

    watch = Watch()
    trained(SFACallback(beta=1.0, p=1.0), watch)
    assert all(torch.equal(watch.at[8][name], weight) for name, weight in watch.at[0].items())
    assert any(not torch.equal(watch.at[7][name], weight) for name, weight in watch.at[0].items())
    watch = Watch()
    with pytest.raises(NotImplementedError, match=r"gradients of .*StepsInBackward.*inside backward"):
        trained(L2Callback(0.1), watch)
    assert list(watch.at) in ([], [0])


def test_one_whose_steps_cannot_be_tried_is_refused() -> None:
    class Closed(torch.optim.SGD):
        def step(self, closure: Any) -> None:
            raise RuntimeError("needs a closure")

    model = tiny_model()
    with pytest.raises(NotImplementedError, match=r"Closed.*could not be tried out.*closure"):
        engines.attach(model, Closed(model.parameters(), 1e-2))


def test_torchs_own_optimizers_are_not_tried() -> None:
    class Raises(torch.optim.AdamW):
        __module__ = "torch.optim.adamw"

        def step(self, closure: Any = None) -> None:
            raise AssertionError

    assert conduct(Raises(tiny_model().parameters())).keeps_edits
