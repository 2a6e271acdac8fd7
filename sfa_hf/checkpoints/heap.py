"""Keeping freed memory for the next block."""

from __future__ import annotations

import ctypes

from sfa_hf.rules import BLOCK

# malloc.h; mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_blocks() -> None:
    """Have glibc's malloc reuse the memory of blocks instead of returning it to the system each time.

    Otherwise every operation on a block faults its pages in anew: up to five times the processor time was
    seen. It holds for the whole process and costs it a few blocks a thread. No-op with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(threshold, 64 * 4 * BLOCK)  # 64 fp32 blocks, 32 MiB: the most that glibc takes
