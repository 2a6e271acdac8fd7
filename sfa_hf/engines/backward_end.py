"""Running something when a step's last backward has ended and its gradients are reduced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from accelerate.state import GradientState
from torch import nn
from torch.autograd import Variable

from sfa_hf.engines.base import Handle
from sfa_hf.engines.refusals import refusal

# Autograd runs the callbacks of a backward in the order queued. DDP and FSDP2 reduce in such callbacks, which
# they queue while gradients arrive, and one of DDP's (static graph) queues another: a third turn comes last.
_TURNS = 3


def after_last_backward(parameters: Iterable[torch.Tensor], run: Callable[[], None]) -> Handle:
    """Call ``run()`` at the end of each backward whose gradients the optimizer is about to step.

    With gradient accumulation that is the last backward of the step, told by accelerate's ``GradientState``;
    without accelerate every backward counts. It runs inside ``backward()``: after DDP's or FSDP2's reduction,
    before clipping.

    Args:
        parameters: trainable parameters; at least one of them must get a gradient in every step.
        run: called with no argument.
    """
    queued_for: list[int] = [-1]

    def wait(turns: int) -> None:
        if turns:
            Variable._execution_engine.queue_callback(partial(wait, turns - 1))
        else:
            run()

    def on_gradient(_: torch.Tensor) -> None:
        backward = torch._C._current_graph_task_id()
        if backward != queued_for[0] and GradientState().sync_gradients:
            queued_for[0] = backward
            wait(_TURNS)

    hooks = [parameter.register_post_accumulate_grad_hook(on_gradient) for parameter in parameters]

    def undo() -> None:
        for hook in hooks:
            hook.remove()

    return Handle(undo)


def refuse_reentrant_checkpointing(model: nn.Module) -> None:
    """Refuse gradient checkpointing whose backward runs other backwards inside, each with an end of its own.

    Raises:
        NotImplementedError: a module checkpoints with ``use_reentrant=True``.
    """
    if any(map(_checkpoints_reentrantly, model.modules())):
        raise refusal("a model with reentrant gradient checkpointing (use_reentrant=False is supported)")


def _checkpoints_reentrantly(module: nn.Module) -> bool:
    checkpoint = getattr(module, "_gradient_checkpointing_func", None)
    if not isinstance(checkpoint, partial) or not getattr(module, "gradient_checkpointing", False):
        return False
    return checkpoint.keywords.get("use_reentrant", True)
