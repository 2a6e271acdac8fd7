"""The method that docs/new-method.md writes runs as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfa_hf import methods
from sfa_hf.sequence import make_config, run_sequence
from tests.sequence.small_run import small_base, small_data, small_values

DOC = Path(__file__).parents[2] / "docs" / "new-method.md"


def test_the_documented_method_runs_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[0]
    assert len(code.splitlines()) <= 30
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "soup.py").write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    methods.known_methods.cache_clear()
    data = tmp_path / "data"
    data.mkdir()
    values = small_values(small_base(tmp_path / "cache"), small_data(data), tmp_path / "run", steps=2)
    values = {**values, "sequence": values["sequence"][:2], "method": {"name": "soup"}}
    try:
        run_sequence(make_config(values))
    finally:
        methods.known_methods.cache_clear()
    first, second, mean = (
        load_file(tmp_path / "run" / folder / "model.safetensors")
        for folder in ("0-sums/trained", "1-words/trained", "1-words/model")
    )
    for name, value in mean.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)
