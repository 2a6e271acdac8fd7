"""What the DeepSpeed tests compile, compiled once and before any test's clock runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

# DeepSpeed builds an op the first time that it is used: an Adam takes a minute or more, and a test
# whose processes were waiting for a compiler would count as hung.
BUILD = """
from deepspeed.accelerator import get_accelerator
for name in ("CPUAdamBuilder", "FusedAdamBuilder", "ShareMemCommBuilder"):
    builder = get_accelerator().create_op_builder(name)
    if builder is not None:
        builder.load(verbose=False)
"""


@pytest.fixture(scope="session", autouse=True)
def deepspeed_ops() -> None:
    subprocess.run([sys.executable, "-c", BUILD], check=True, capture_output=True, timeout=900)
