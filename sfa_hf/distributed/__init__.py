"""Several processes: their ranks, what one decides for all, and a clean end."""

from sfa_hf.distributed.exit import clean_end
from sfa_hf.distributed.processes import barrier, from_first_process, rank, world_size

__all__ = ["barrier", "clean_end", "from_first_process", "rank", "world_size"]
