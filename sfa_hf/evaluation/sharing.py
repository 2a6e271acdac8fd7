"""All processes share the rows of a task; each row is counted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tqdm import tqdm

from sfa_hf.distributed.processes import Result, everyones, rank, world_size

Batch = Sequence[int]


def progress_bar(task: str, rows: int, wanted: bool | None) -> tqdm:
    """Sequences done and their rate, on the first process; by default only where a terminal shows it."""
    hidden = None if wanted is None else not wanted  # None is tqdm's word for "unless it is a terminal"
    return tqdm(total=rows, desc=task, unit="sequence", leave=False, disable=hidden if rank() == 0 else True)


def run_shared(
    batches: Sequence[Batch],
    run: Callable[[Batch], Sequence[Result]],
    *,
    in_step: bool,
    bar: tqdm,
) -> list[Result]:
    """Run the batches, process r taking batches r, r + W, r + 2W, ..., and collect what they give.

    Args:
        batches: partition of ``range(n)``, the same on every process.
        run: one batch's results, in the batch's order.
        in_step: every forward pass is a collective (weights sharded over the processes): a process that has
            run out of batches repeats the last one, and its results are thrown away.
        bar: advanced by the rows that all processes finish in a round.

    Returns:
        The results of 0 ... n-1, on every process.
    """
    found: dict[int, Result] = {}
    for start in range(0, len(batches), world_size()):
        mine = start + rank()
        if mine < len(batches):
            found.update(zip(batches[mine], run(batches[mine]), strict=True))
        elif in_step:
            run(batches[-1])
        bar.update(sum(len(batch) for batch in batches[start : start + world_size()]))
    of_all = {index: result for part in everyones(found) for index, result in part.items()}
    return [of_all[index] for index in range(sum(len(batch) for batch in batches))]
