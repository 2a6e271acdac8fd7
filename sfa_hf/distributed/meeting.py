"""Where the processes of a launch find each other before there is a process group."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

_RETRY_SECONDS = 1.0


def connected(host: str, port: int, seconds: float) -> socket.socket:
    """Connect, as soon as the other side listens; the caller limits the time."""
    while True:  # until the start's time is up
        with suppress(OSError):
            return socket.create_connection((host, port), timeout=seconds)
        time.sleep(_RETRY_SECONDS)


def open_store(rank: int, seconds: float) -> dist.TCPStore:
    """The store that the process group meets at too: of the launcher's agent, or of rank 0."""
    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not of_agent,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=True,
    )


def key() -> str:
    """The store's key for where rank 0 listens, in this attempt of the launcher's."""
    return f"sfa_hf/peers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def own_name() -> str:
    """What the other processes call this one."""
    return f"process {os.getpid()} on {socket.gethostname()}"
