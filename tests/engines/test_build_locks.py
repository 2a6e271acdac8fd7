from __future__ import annotations

from pathlib import Path

import pytest

from sfa_hf.engines.deepspeed.build_locks import warn_of_build_locks

DEEPSPEED = {"deepspeed": "configs/deepspeed/zero2.json"}


def test_a_lock_that_was_left_is_named_to_who_would_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    warn_of_build_locks(DEEPSPEED)
    assert not caplog.records
    (tmp_path / "deepspeed_shm_comm").mkdir()
    (tmp_path / "deepspeed_shm_comm" / "lock").touch()
    warn_of_build_locks({})
    assert not caplog.records
    warn_of_build_locks(DEEPSPEED)
    assert str(tmp_path / "deepspeed_shm_comm" / "lock") in caplog.text
    caplog.clear()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    warn_of_build_locks({})
    assert "deepspeed_shm_comm" in caplog.text
