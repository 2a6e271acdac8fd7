"""A process that leaves right after its collectives, and whose gloo workers are as late as can be.

usage: python late_workers.py FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from sfa_hf.distributed import clean_end

GROUPS = 15


class SlowToGo:
    """Keeps the interpreter finalising for a while without its lock, until a late worker comes."""

    sleep = time.sleep

    def __del__(self) -> None:
        self.sleep(0.3)


def main(folder: str) -> None:
    store = f"file://{folder}/{os.getpid()}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    groups = [dist.new_group([0]) for _ in range(GROUPS)]
    _let_the_main_thread_go_first()
    with clean_end():
        for group in groups:
            dist.all_gather([torch.empty(1000)], torch.ones(1000), group=group)


def _let_the_main_thread_go_first() -> None:
    one_cpu = {min(os.sched_getaffinity(0))}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), one_cpu)
        if (thread / "comm").read_text().strip() == "pt_gloo_runloop":
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


if __name__ == "__main__":
    slow_to_go = SlowToGo()
    main(sys.argv[1])
