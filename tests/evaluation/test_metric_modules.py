from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sfa_hf.evaluation.metrics.loading import compute

LOAD = """
from sfa_hf.evaluation.metrics.loading import compute
for name in ("exact_match", "f1"):
    options = {"positive": "a"} if name == "f1" else {}
    print(compute(name, predictions=["a", "b", "c"], references=["a", "a", "b"], **options)[name])
"""


@pytest.mark.slow
def test_processes_may_load_the_modules_at_once_into_an_empty_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert [float(line) for line in out.split()] == [1 / 3, 2 / 3]


def test_exact_match_looks_past_white_space_alone() -> None:
    found = compute("exact_match", predictions=["b", "A", " a \n b "], references=["a", "a", "a b"])
    assert found["exact_match"] == 1 / 3


def test_floats_keep_their_precision() -> None:
    total = -1.23456789012345
    found = compute("nll", log_likelihoods=[total], tokens=[1], bytes=[1])
    assert found["nll"] == -total
