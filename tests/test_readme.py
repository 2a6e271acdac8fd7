"""What the README shows is what runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_script_in_the_readme_merges_four_times(tmp_path: Path) -> None:
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert script is not None
    run = subprocess.run(
        [sys.executable, "-c", script[1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    last = run.stdout.strip().splitlines()[-1]
    assert [int(step) for step in re.findall(r"\((\d+), ", last)] == [10, 20, 30, 40]


def test_every_path_in_the_readme_and_docs_exists() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for path in re.findall(r"\b((?:scripts|configs|tests|benchmarks)/[\w./-]+\.\w+)", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
