"""Starting lm-eval beside a run, and keeping what it finds in the run's folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfa_hf.distributed.processes import from_first_process, rank
from sfa_hf.evaluation.options import LmEvalOptions
from sfa_hf.files.atomic import read_json, write_json

_PACKAGES = Path(__file__).resolve().parents[3]
_WORKER = "sfa_hf.evaluation.harness.worker"
#: What a launcher tells its processes about each other: the worker belongs to another launch.
_LAUNCH = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)"
    r"|(TORCHELASTIC|ACCELERATE|FSDP|PARALLELISM_CONFIG)_.*"
)
_SECONDS_BETWEEN_LOOKS = 1.0
_SHOWN_LINES = 15
_LAUNCHER_SAYS = "torch/distributed/elastic/multiprocessing/api.py"


@dataclass(frozen=True)
class Harness:
    """lm-eval's tasks on saved models; a run keeps what it finds after each stage as ``after-K.json``.

    Attributes:
        options: which tasks, and how.
        folder: where results and logs go.
        data_dir: folder from which lm-eval runs, so that task files may name data as the run's own do.
        dtype: of the model's weights, e.g. "float32".
        batch_size: where the options give none.
    """

    options: LmEvalOptions
    folder: Path
    data_dir: Path
    dtype: str
    batch_size: int

    def missing(self, rows: int) -> list[int]:
        """Of the first ``rows`` stages, those not evaluated yet; the same on every process."""
        return from_first_process(lambda: [row for row in range(rows) if not self.file(row).is_file()])

    def found(self, rows: int) -> list[dict[str, Any]]:
        """What lm-eval found after each of the first ``rows`` stages, as in results.json."""
        right = "remove the file and run again"
        files = [(row, self.file(row)) for row in range(rows)]
        return [{"after": row, **read_json(file, right)} for row, file in files if file.is_file()]

    def file(self, row: int) -> Path:
        return self.folder / f"after-{row}.json"

    def evaluate(self, model: str, output: Path) -> None:
        """Evaluate a saved model (folder or Hub id) and write ``output``; a log goes beside it.

        Called by every process. The first of them starts lm-eval's processes, all of them on its machine; the
        others ask it once a second whether it is done: a collective that waited for hours would time out.

        Raises:
            RuntimeError: lm-eval failed; with the end of its log.
        """
        log = output.with_suffix(".log")
        worker = self._start(model, output, log) if rank() == 0 else None
        try:
            while (code := from_first_process(lambda: worker.poll() if worker else None)) is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            if worker is not None and worker.poll() is None:
                worker.terminate()
                worker.wait()
        if code:
            raise RuntimeError(from_first_process(lambda: f"lm-eval failed; the end of {log}:\n{_end(log)}"))

    def _start(self, model: str, output: Path, log: Path) -> subprocess.Popen[bytes]:
        job = output.with_suffix(".job")
        write_json(job, self._job(model, output))
        processes = self.options.processes or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launcher, "--module", _WORKER, str(job.resolve())]
        with log.open("wb") as file:
            return subprocess.Popen(  # noqa: S603 - this interpreter, on a module of this package
                command, cwd=self.data_dir, env=_environment(), stdout=file, stderr=subprocess.STDOUT
            )

    def _job(self, model: str, output: Path) -> dict[str, Any]:
        """What the worker is told; it runs from another folder, so paths are whole."""
        include = self.options.include_path
        return {
            **self.options.model_dump(exclude={"processes"}),
            "batch_size": self.options.batch_size or self.batch_size,
            "include_path": include and str(Path(include).resolve()),
            "model": str(Path(model).resolve()) if Path(model).is_dir() else model,
            "dtype": self.dtype,
            "output": str(output.resolve()),
        }


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not _LAUNCH.fullmatch(key)}
    # found from another folder too, where this package is not installed but on a relative path
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PACKAGES), kept.get("PYTHONPATH")]))
    return kept if torch.cuda.is_available() else {**kept, "ACCELERATE_USE_CPU": "true"}


def _end(log: Path) -> str:
    """The last lines that a worker wrote, without those that its launcher adds."""
    workers, _, _ = log.read_text(errors="replace").partition(_LAUNCHER_SAYS)
    return "\n".join(workers.splitlines()[:-1][-_SHOWN_LINES:])
