"""Without a process namespace: a process that outlives the judge by as long as it takes to end the rest."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

from sfa_hf.evaluation.sandbox.inside.walls import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl


def keep() -> None:
    """Go on in a child of this process; when the child has ended, all of its descendants are killed.

    When their parents end, they become children of this process. As root, it cannot be signalled by nobody.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    judge = os.fork()
    if judge:
        _sweep_after(judge)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _sweep_after(judge: int) -> NoReturn:
    try:
        while os.wait()[0] != judge:
            pass
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while pids := children.read_text().split():
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            for pid in pids:
                os.waitpid(int(pid), 0)
    finally:
        os._exit(0)
