"""Fisher merges in training on every engine: each against float64 on gathered weights and moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.utils import safe_get_full_optimizer_state
from harness import run_ranks
from test_fsdp2 import local_batch, sharded
from tiny_training import arguments, tiny_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerControl, TrainerState
from zero_rows import Row, full_masters, quiet_deepspeed, start, train_step

from sfa_hf import SecondMomentsCallback, SFACallback
from sfa_hf.engines import Shard
from sfa_hf.moments.folder import MomentFolder
from tests.fisher_reference import expected, ulps

BETA, BETA2, STEPS = 0.3, 0.999, 2
Weights = dict[str, Tensor]

ZERO = [
    Row(1, "bf16"),
    Row(2, "bf16", offload=True),
    Row(3, "bf16"),
    Row(3, "fp32", offload=True, offload_parameters=True),
    Row(1, "bf16", sum_in_fp32=True),
    Row(0, "fp32"),
]
COMPILED = [Row(2, "bf16", "cpu_adam", offload=True), Row(3, "bf16", "fused"), Row(0, "fp32", "fused")]


class Training:
    """A training whose callbacks are called as the Trainer would call them.

    Args:
        model: unwrapped.
        optimizer: what steps it.
        step: takes the step of that number.
        weights: gathers the master weights.
        moment: gathers ``exp_avg_sq`` of one parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        step: Callable[[int], None],
        weights: Callable[[], Weights],
        moment: Callable[[nn.Parameter], Tensor],
    ) -> None:
        self._event = {"model": model, "optimizer": optimizer}
        self._step, self.weights, self._moment = step, weights, moment
        self._taken = 0

    def moments(self) -> Weights:
        """F, bias-corrected by the number of steps that were taken."""
        parameters = dict(self._event["model"].named_parameters())
        correction = 1 - BETA2**self._taken
        return {
            n: self._moment(parameters[n]).double().view(w.shape) / correction
            for n, w in self.weights().items()
        }

    def run(self, callback: Any, folder: Path) -> tuple[Weights, TrainerState]:
        """Train with one callback; return the weights between the last step and its merge."""
        args, state, control = (
            arguments(folder, max_steps=STEPS),
            TrainerState(max_steps=STEPS),
            TrainerControl(),
        )
        callback.on_train_begin(args, state, control, **self._event)
        for _ in range(STEPS):
            self._step(self._taken)
            self._taken += 1
            state.global_step += 1
            before = self.weights()
            callback.on_step_end(args, state, control, **self._event)
        self.merged = self.weights()
        callback.on_train_end(args, state, control, **self._event)
        return before, state


def merge_of(training: Training, folder: Path, before_folder: Path | None = None) -> dict[str, Any]:
    """Two tasks; the second merges with the moments of the first, or of another engine's first."""
    training.run(SecondMomentsCallback(), folder / "a")
    theta_o, f_1 = training.weights(), training.moments()
    kept = MomentFolder(folder / "a" / "_second_moments")
    stored = moments_in(before_folder or folder / "a", theta_o)
    callback = SFACallback(
        BETA,
        1.0,
        rule="fisher",
        anchor_moments=(before_folder or folder / "a") / "_second_moments",
        save_anchor=False,
    )
    before, state = training.run(callback, folder / "b")
    f = training.moments()
    exact = {n: expected(before[n], theta_o[n], f[n], stored[n], beta=BETA, power=0.5) for n in before}
    new = moments_in(folder / "b", theta_o)
    return {
        "ulps": max(ulps(exact[n], training.merged[n], before[n], theta_o[n]) for n in exact),
        "first": worst({n: v.double() for n, v in moments_in(folder / "a", theta_o).items()}, f_1),
        "second": worst(new, {n: BETA * stored[n].double() + (1 - BETA) * f[n] for n in f}),
        "steps": kept.facts.steps,
        "fingerprints": [MomentFolder(folder / task / "_second_moments").facts.fingerprint for task in "ab"],
        "weight": state.log_history[-1]["sfa/anchor_weight/all"],
        "mean": mean_weight(before, theta_o, f, stored),
    }


def mean_weight(before: Weights, theta_o: Weights, f: Weights, stored: Weights) -> float:
    """The merge of 0 with an anchor of 1 is the anchor's weight."""
    shares = [
        expected(torch.zeros_like(w), torch.ones_like(w), f[n], stored[n], beta=BETA, power=0.5).flatten()
        for n, w in before.items()
    ]
    return torch.cat(shares).mean().item()


def moments_in(folder: Path, like: Weights) -> Weights:
    kept = MomentFolder(folder / "_second_moments")
    return {n: kept.read(Shard(n, w.view(-1), 0, w.shape)).view(w.shape) for n, w in like.items()}


def worst(found: Weights, exact: Weights) -> float:
    """Largest relative error, of what is not zero."""
    return max(((found[n] - e).abs() / e.abs().clamp(min=1e-30)).max().item() for n, e in exact.items())


def under_zero(row: Row) -> Training:
    engine = start(row)

    def moment(parameter: nn.Parameter) -> Tensor:
        if row.stage == 0:
            return engine.optimizer.state[parameter]["exp_avg_sq"]
        if row.stage < 3 and not row.sum_in_fp32:
            # DeepSpeed 0.19 links states once, after the first group has stepped: the second has none yet.
            engine.optimizer._hp_optimizer_states_linked = False
            engine.optimizer._lazy_init_hp_params_optimizer_state()
        return safe_get_full_optimizer_state(parameter, "exp_avg_sq")

    return Training(
        engine.module,
        engine.optimizer,
        lambda step: train_step(engine, row, step),
        lambda: full_masters(engine, row),
        moment,
    )


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def by_hand(fsdp: bool) -> Training:
    model = sharded(tiny_model()) if fsdp else tiny_model()
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    computing = model if fsdp else DistributedDataParallel(model)

    def step(number: int) -> None:
        computing(**local_batch(number))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return Training(
        model,
        optimizer,
        step,
        lambda: {name: whole(p) for name, p in parameters.items()},
        lambda p: whole(optimizer.state[p]["exp_avg_sq"]),
    )


def everywhere(folder: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each engine in turn; the moments that the first one wrote are what all ZeRO rows merge with."""
    with quiet_deepspeed():
        first, found = Path(folder, "0", "a"), {}
        for i, fields in enumerate(rows):
            row = Row(**fields)
            found[row.label()] = merge_of(under_zero(row), Path(folder, str(i)), first if i else None)
        found["ddp"] = merge_of(by_hand(fsdp=False), Path(folder, "ddp"))
        found["fsdp2"] = merge_of(by_hand(fsdp=True), Path(folder, "fsdp2"), Path(folder, "ddp", "a"))
        return found


@pytest.mark.parametrize(
    "rows", [ZERO, pytest.param(COMPILED, marks=pytest.mark.slow)], ids=["torch", "compiled"]
)
def test_a_merge_on_every_engine_is_the_formula_in_float64(rows: list[Row], tmp_path: Path) -> None:
    first, second = run_ranks(everywhere, 2, folder=str(tmp_path), rows=[row.as_json() for row in rows])
    assert first == second
    assert len(first) == len(rows) + 2
    for engine, found in first.items():
        assert found["ulps"] <= 1, engine
        assert max(found["first"], found["second"]) < 1e-6, engine
        assert found["steps"] == STEPS, engine
        assert found["weight"] == pytest.approx(found["mean"], rel=1e-6), engine
    files = sorted(path.name for path in (tmp_path / "ddp" / "b" / "_second_moments").iterdir())
    assert files == ["00000-of-00002.safetensors", "facts.json"]
