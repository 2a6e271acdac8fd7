"""Runs a function of a test module in several real processes, as a launcher would.

>>> def both_ranks_agree(value: int) -> int:
...     with gloo():
...         ...
...     return value
>>> assert run_ranks(both_ranks_agree, 2, value=3) == [3, 3]

The function is imported again in each process, so it stands at the top level of its module; its arguments
and what it returns are JSON. Any rank that fails, hangs or exits with another code than 0 fails the test, and
what it printed is shown.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from sfa_hf.distributed.exit import wait_for_gloo_workers
from tests.launches import Ended, launch

SECONDS = 180
_SHOWN_CHARACTERS = 6000


def run_ranks(
    function: Callable[..., Any], ranks: int, *, seconds: float = SECONDS, **arguments: Any
) -> list[Any]:
    """Call ``function(**arguments)`` in ``ranks`` processes and return what each returned, by rank.

    Args:
        function: found by its module and name in each process.
        ranks: how many processes; each finds RANK, WORLD_SIZE, MASTER_ADDR, ... set, and no process group.
        seconds: the processes are killed after so long, and the test fails.
        **arguments: JSON values.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{rank}.log") for rank in range(ranks)]
        call = {"name": name, "arguments": arguments, "folder": folder}
        ended = launch(f"{__name__}:answer", call, logs, seconds=seconds, together=True)
        if any(ended.codes):
            raise AssertionError(_failure(name, ended, logs))
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def answer(name: str, arguments: dict[str, Any], folder: str) -> None:
    """Call a function in one of the processes, and leave what it returns."""
    module, function = name.split(":")
    value = getattr(importlib.import_module(module), function)(**arguments)
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(value))


@contextmanager
def gloo() -> Iterator[None]:
    """Open the default process group on gloo; close it even if the body fails.

    What holds the group (a DDP or FSDP module) belongs in a function called in the body, so that it is gone
    before the group is: whoever drops the last reference to a gloo group waits for its threads while holding
    the interpreter's lock, and a thread that needs the lock then waits for ever.
    """
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        wait_for_gloo_workers()
        dist.destroy_process_group()


def _failure(name: str, ended: Ended, logs: list[Path]) -> str:
    lines = [f"{name}: exit codes {ended.codes}{', killed when time was up' if ended.hung else ''}"]
    for rank, (code, log) in enumerate(zip(ended.codes, logs, strict=True)):
        if code:
            said = re.sub(r"^Extension modules:.*\n", "", log.read_text(errors="replace"), flags=re.MULTILINE)
            lines += [f"--- rank {rank}", said[-_SHOWN_CHARACTERS:]]
    return "\n".join(lines)
