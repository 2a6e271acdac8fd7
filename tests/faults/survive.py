"""Kills a three-task run again and again, continues it each time, and compares it with one left alone.

usage: python -m tests.faults.survive [--kills 30] [--seed 0] [plain] [ddp] [zero2] [zero3]

It prints, for each engine, the kills that the run survived, the tasks that had to start over from their first
step, and the bytes of final weights that differ from the uninterrupted run's.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from sfa_hf.config.cli import EXIT_BAD_INPUT, EXIT_NO_ROOM, EXIT_PREEMPTED
from tests.faults.fault import Fault, drawn_kill
from tests.faults.launcher import launch
from tests.sequence.small_run import TASKS, small_base, small_data, small_values

STEPS, SAVE_STEPS = 9, 2
_SIGKILL = -9
_LAUNCH_SECONDS = 180
ENGINES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {}),
    "ddp": (2, {}),
    "zero1": (2, {"deepspeed": "configs/deepspeed/zero1.json", "bf16": True}),
    "zero2": (2, {"deepspeed": "configs/deepspeed/zero2.json", "bf16": True}),
    "zero3": (2, {"deepspeed": "configs/deepspeed/zero3.json", "bf16": True}),
}


class Outcome(NamedTuple):
    """What the kills did."""

    engine: str
    kills: int
    moments: dict[str, int]
    runs: int
    restarted_tasks: int
    resumed_tasks: int
    bytes_lost: int

    def __str__(self) -> str:
        moments = ", ".join(f"{name} {count}" for name, count in sorted(self.moments.items()))
        return (
            f"{self.engine:6} {self.kills:3} kills survived in {self.runs} runs, {self.resumed_tasks} tasks "
            f"resumed, {self.restarted_tasks} restarted, {self.bytes_lost} bytes lost; killed at: {moments}"
        )


class Endurance:
    """One engine's runs in one folder."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self._folder = engine, folder
        self._ranks, training = ENGINES[engine]
        self._base = small_base(folder / "models")
        self._data = small_data(folder)
        self._training = {"save_strategy": "steps", "save_steps": SAVE_STEPS, **training}
        self.log = folder / "log"
        started = time.monotonic()
        self.whole = folder / "whole"
        self.launch(self.whole, None)
        self._seconds = time.monotonic() - started

    def survive(self, kills: int, seed: int) -> Outcome:
        """Kill runs until ``kills`` are reached; each run is continued until it is finished, and compared."""
        chance = random.Random(f"{seed} {self.engine}")
        moments: Counter[str] = Counter()
        runs = lost = 0
        while sum(moments.values()) < kills:
            runs += 1
            run = self._folder / f"run-{runs}"
            finished = False
            while not finished:
                enough = sum(moments.values()) >= kills
                moment, kill = drawn_kill(chance, self._ranks, self._seconds)
                code = self.launch(run, None if enough else kill)
                finished = code == 0
                moments[moment] += not finished
            lost += self.compare(run)
        log = self.said()
        begun = sum(log.count(f"task {k + 1} of {len(TASKS)}") for k in range(len(TASKS)))
        resumed = log.count(": resuming after step")
        restarted = begun - resumed - len(TASKS) * (runs + 1)
        return Outcome(self.engine, sum(moments.values()), dict(moments), runs, restarted, resumed, lost)

    def values(self, run: Path) -> dict[str, Any]:
        """The config of a run in this folder."""
        values = small_values(self._base, self._data, run, STEPS)
        values["training"] |= self._training
        values["method"]["anchor_device"] = "disk"
        return values

    def launch(self, run: Path, fault: Fault | None) -> int:
        """Type the command; give the exit code of the process that the fault befell, or 0."""
        codes = launch(self.values(run), self._ranks, self.log, fault, _LAUNCH_SECONDS)
        if not any(codes):
            return 0
        code = codes[fault.rank] if fault else None
        assert code in {_SIGKILL, EXIT_NO_ROOM, EXIT_BAD_INPUT, EXIT_PREEMPTED}, (
            f"{codes}\n{self.said()[-6000:]}"
        )
        return int(code)

    def said(self) -> str:
        """What all launches printed."""
        return self.log.read_text(errors="replace")

    def compare(self, run: Path) -> int:
        """Check the results, and count bytes of weights that differ."""
        different = _differences(_comparable(self.whole), _comparable(run))
        assert not different, different
        lost = 0
        for kept in sorted(self.whole.glob("*/model/*.safetensors")):
            found = run / kept.relative_to(self.whole)
            pairs = zip(kept.read_bytes(), found.read_bytes(), strict=True)
            lost += sum(one != other for one, other in pairs)
        left = [path.name for path in run.glob("[0-9]*-*/*") if path.name != "model"]
        assert not left, left
        return lost


def _comparable(run: Path) -> dict[str, Any]:
    """results.json apart from times, and from peaks of memory, which other launches share out otherwise."""
    found = json.loads((run / "results.json").read_text())
    found["cost"] = sorted(found["cost"])
    for merge in found["merges"]:
        merge["seconds"] = None
    return found


def _differences(whole: Any, found: Any, place: str = "results") -> list[str]:
    """Where two JSON values differ, and how."""
    if isinstance(whole, dict) and isinstance(found, dict) and whole.keys() == found.keys():
        return [text for key in whole for text in _differences(whole[key], found[key], f"{place}.{key}")]
    if isinstance(whole, list) and isinstance(found, list) and len(whole) == len(found):
        pairs = enumerate(zip(whole, found, strict=True))
        return [text for i, (one, two) in pairs for text in _differences(one, two, f"{place}[{i}]")]
    return [] if whole == found else [f"{place}: {whole} in the whole run, {found} in the continued one"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", nargs="*", default=["plain", "ddp", "zero2", "zero3"])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for engine in options.engines:
        with tempfile.TemporaryDirectory() as folder:
            print(Endurance(engine, Path(folder)).survive(options.kills, options.seed), flush=True)


if __name__ == "__main__":
    main()
