"""A run that diverges ends alike on every engine, also when launched again, and leaves no such weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sfa_hf.config.cli import EXIT_DIVERGED
from tests.faults.launcher import launch
from tests.faults.survive import ENGINES, SAVE_STEPS, STEPS
from tests.sequence.small_run import small_base, small_data, small_values

_DEAR = [pytest.param(engine, marks=pytest.mark.slow) for engine in ENGINES if engine != "plain"]


@pytest.mark.parametrize("engine", ["plain", *_DEAR])
def test_a_learning_rate_far_too_high_ends_with_one_line(tmp_path: Path, engine: str) -> None:
    ranks, training = ENGINES[engine]
    run = tmp_path / "run"
    values = small_values(small_base(tmp_path / "models"), small_data(tmp_path), run, STEPS)
    values["training"] |= {
        "save_strategy": "steps",
        "save_steps": SAVE_STEPS,
        "learning_rate": 1e30,
        **training,
    }
    for attempt in ("first", "again"):
        log = tmp_path / attempt
        assert launch(values, ranks, log, None, seconds=180) == [EXIT_DIVERGED] * ranks
        said = log.read_text()
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert re.match(r"error: training diverged at step [245] of task sums: ", lines[0])
        assert "Traceback" not in said
        # DeepSpeed skips the steps whose gradients are not finite: what it saves before the third is finite
        saved = list(run.glob("*/*/*.safetensors"))
        assert not saved or ENGINES[engine][1]
        assert all(bool(values.isfinite().all()) for file in saved for values in load_file(file).values())
