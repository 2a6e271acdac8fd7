"""SLAO: one adapter, started orthogonally and merged before it forgets (arXiv 2512.23017, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from accelerate import PartialState
from torch import Tensor

from sfa_hf.adapters.merged import read_adapter, write_like
from sfa_hf.files.folders import new_folder
from sfa_hf.methods.base import CARRY, Preparation, Stage
from sfa_hf.methods.factors import OfFactors

ORTHOGONAL = "orthogonal"
"""Folder, in a past task's, of the adapter that the next task starts from."""


class SLAO(OfFactors):
    r"""Trains on from an orthonormal A, and merges B with a weight that shrinks with the tasks.

    With A_i and B_i as the training of task i left them, from 1 on:

    1. Task i starts with A = Q^T of Q R = A_{i-1}^T, the diagonal of R positive, and B = B_{i-1}.
    2. Its model has A_i and \bar B_i = \bar B_{i-1} + (B_i - \bar B_{i-1}) / \sqrt{i}; \bar B_1 = B_1.
    """

    ADAPTERS: ClassVar[tuple[str, ...]] = CARRY

    name: Literal["slao"] = "slao"

    def start(self, stage: Stage) -> str:
        return str(stage.past[-1].folder / ORTHOGONAL) if stage.past else stage.base

    def prepare(self, preparation: Preparation) -> None:
        past, processes = preparation.stage.past, PartialState()
        if past and processes.is_main_process and not (past[-1].folder / ORTHOGONAL).exists():
            trained = past[-1].trained if past[-1].past else past[-1].model
            with new_folder(past[-1].folder / ORTHOGONAL) as folder:
                tensors, _ = read_adapter(trained)
                write_like(trained, folder, {name: _start(name, value) for name, value in tensors.items()})
        processes.wait_for_everyone()

    def combines(self, stage: Stage) -> Callable[[Path], None] | None:
        return partial(_merge, stage) if stage.past else None


def _start(name: str, factor: Tensor) -> Tensor:
    """An A with orthonormal rows that span the same space; B as it is."""
    if not _is_a(name):
        return factor
    q, r = torch.linalg.qr(factor.double().mT)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q)
    return (q * signs).mT.to(factor.dtype)


def _merge(stage: Stage, out: Path) -> None:
    trained, _ = read_adapter(stage.trained)
    before, _ = read_adapter(stage.past[-1].model)
    weight = (stage.index + 1) ** -0.5
    merged = {
        name: value if _is_a(name) else before[name].lerp(value, weight) for name, value in trained.items()
    }
    write_like(stage.trained, out, merged)


def _is_a(name: str) -> bool:
    return name.endswith(".lora_A.weight")
