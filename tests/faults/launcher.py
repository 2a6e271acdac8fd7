"""Launches a run on one or several processes, one of which may be killed, told to end, or out of disk."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfa_hf.config.cli import run_main
from sfa_hf.sequence import make_config, run_sequence
from tests import launches
from tests.faults.fault import Fault


def launch(values: dict[str, Any], ranks: int, log: Path, fault: Fault | None, seconds: float) -> list[int]:
    """Run the sequence that a config describes, as its script would, and wait for it.

    Args:
        values: the config.
        ranks: how many processes.
        log: what they print is added to it.
        fault: what befalls one of them. If it is killed, so are the others; else they end by themselves.
        seconds: they are taken for hung after so long.

    Returns:
        Exit codes by rank; minus the signal's number for one that was killed.
    """
    ended = launches.launch(
        f"{__name__}:run",
        {"values": values, "fault": asdict(fault) if fault else None},
        [log] * ranks,
        seconds=seconds,
        together=False,
        distributed=ranks > 1,
        ops=["ShareMemCommBuilder"] if "deepspeed" in values["training"] else [],
    )
    assert not ended.hung, f"a process hung:\n{log.read_text(errors='replace')[-12000:]}"
    return ended.codes


def run(values: dict[str, Any], fault: dict[str, Any] | None) -> None:
    """Run a sequence in one of the processes, in which a fault may be armed."""
    if fault is not None and fault["rank"] == int(os.environ.get("RANK", "0")):
        Fault(**fault).arm()
    run_main(lambda _: print(run_sequence(make_config(values))))
