"""Several processes: their ranks, what one decides for all, the same draws on each, and a clean end."""

from sfa_hf.distributed.exit import clean_end
from sfa_hf.distributed.processes import (
    barrier,
    everyones,
    from_every_process,
    from_first_process,
    rank,
    world_size,
)
from sfa_hf.distributed.seeds import seed_from

__all__ = [
    "barrier",
    "clean_end",
    "everyones",
    "from_every_process",
    "from_first_process",
    "rank",
    "seed_from",
    "world_size",
]
