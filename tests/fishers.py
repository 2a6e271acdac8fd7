"""Fishers of tiny models: one computed in float64 row by row, and made-up ones of tasks that never were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tiny_training import VOCABULARY
from torch import Tensor, nn

from sfa_hf import engines
from sfa_hf.fisher.folder import save_fisher
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.store import open_store

PAST = 3
DECAY = 0.5
LAMBDA = 40.0


def answered(count: int = 9, seed: int = 4) -> Dataset:
    """Rows of several lengths, whose first tokens are a prompt."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, VOCABULARY, (6 + i % 5,), generator=generator).tolist() for i in range(count)]
    labels = [[-100] * (2 + i % 3) + row[2 + i % 3 :] for i, row in enumerate(rows)]
    return Dataset.from_dict({"input_ids": rows, "labels": labels})


def fisher_in_float64(model: nn.Module, rows: Dataset) -> dict[str, Tensor]:
    """Mean over rows of the squared gradient of the summed log-likelihood of a row's labels."""
    model = model.double().eval()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    squares = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in rows:
        tokens, labels = torch.tensor([row["input_ids"]]), row["labels"]
        logs = model(input_ids=tokens).logits[0].log_softmax(-1)
        likelihood = sum(logs[at - 1, label] for at, label in enumerate(labels) if label != -100)
        for name, gradient in zip(
            parameters, torch.autograd.grad(likelihood, list(parameters.values())), strict=True
        ):
            squares[name] += gradient**2
    return {name: square / len(rows) for name, square in squares.items()}


def made_up_past(folder: Path, model: nn.Module) -> list[tuple[str, str]]:
    """Save a Fisher and a model of each of PAST tasks; the last one's model is ``model``."""
    engine = engines.attach(model, torch.optim.SGD(model.parameters()))
    places = []
    for task in range(PAST):
        place = folder / str(task)
        place.mkdir(parents=True)
        generator = torch.Generator().manual_seed(task)
        fisher = ShardBuffer(
            engine.shards(),
            lambda shard, g=generator: torch.rand(shard.data.numel(), generator=g),
            open_store("cpu", engine.shards(), torch.float32, Path()),
        )
        save_fisher(place / "fisher", engine, engine.shards(), fisher, {"task": str(task)})
        apart = {
            name: p.detach() + (PAST - 1 - task) * 0.05 * torch.randn(p.shape, generator=generator)
            for name, p in model.named_parameters()
        }
        save_file(apart, place / "model.safetensors")
        places.append((str(place / "fisher"), str(place)))
    return places


class PenaltyOf:
    """The penalty as the paper writes it, of the tasks that :func:`made_up_past` saved for ``model``."""

    def __init__(self, mode: str, model: nn.Module) -> None:
        self._mode = mode
        generators = [torch.Generator().manual_seed(task) for task in range(PAST)]
        names = {name: p.detach() for name, p in model.named_parameters()}
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        self._fishers = [
            {name: torch.rand(names[name].numel(), generator=g).view(names[name].shape) for name in trained}
            for g in generators
        ]
        self._thetas = [
            {
                name: p + (PAST - 1 - task) * 0.05 * torch.randn(p.shape, generator=g)
                for name, p in names.items()
            }
            for task, g in enumerate(generators)
        ]

    def __call__(self, theta: Mapping[str, Tensor], theta_o: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for task, (fisher, theta_j) in enumerate(zip(self._fishers, self._thetas, strict=True)):
            weight = 1.0 if self._mode == "separate" else DECAY ** (PAST - 1 - task)
            around = theta_j if self._mode == "separate" else theta_o
            total = total + weight * sum(
                (fisher[name].double() * (theta[name] - around[name].double()) ** 2).sum() for name in theta
            )
        return LAMBDA / 2 * total


def largest_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Largest difference, as a part of the largest entry of the same tensor."""
    return max(
        ((found[name].double() - value).abs().max() / value.abs().max()).item()
        for name, value in expected.items()
    )


def whole_fisher(folder: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Read a saved Fisher as one process would."""
    from sfa_hf.engines import Shard
    from sfa_hf.fisher.folder import FisherFolder

    saved = FisherFolder(folder)
    whole = {
        name: Shard(name, torch.empty(torch.Size(shape).numel()), 0, torch.Size(shape))
        for name, shape in shapes.items()
    }
    return {name: saved.read(shard).view(shard.shape) for name, shard in whole.items()}
