"""With ``push_to_hub`` the model travels, and nothing of what a callback keeps beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects
from tiny_training import train
from transformers import TrainerCallback

from sfa_hf import EMACallback, SFACallback
from sfa_hf.moments.callback import SecondMomentsCallback

CALLBACKS: dict[str, Callable[[], TrainerCallback]] = {
    "sfa": lambda: SFACallback(p=0.5),
    "disk": lambda: SFACallback(p=0.5, anchor_device="disk"),
    "ema": EMACallback,
    "moments": SecondMomentsCallback,
}


class Hub:
    """Stands for the Hub's client: notes what an upload would send."""

    def __init__(self) -> None:
        self.sent: set[str] = set()

    def create_repo(self, repo_id: str, **given: Any) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, folder_path: str, ignore_patterns: list[str], **given: Any) -> SimpleNamespace:
        folder = Path(folder_path)
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        self.sent |= set(filter_repo_objects(files, ignore_patterns=ignore_patterns))
        return SimpleNamespace(done=lambda: True, is_done=lambda: True)


@pytest.mark.parametrize("kept", CALLBACKS)
def test_what_callbacks_keep_stays_at_home(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: hub)
    options = {"save_strategy": "steps", "save_steps": 4, "hub_always_push": True}
    train(
        tmp_path, [CALLBACKS[kept]()], max_steps=8, push_to_hub=True, hub_model_id="someone/model", **options
    )
    at_home = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert at_home > {"checkpoint-4", "checkpoint-8"} or kept == "ema"
    assert "model.safetensors" in hub.sent
    assert not [file for file in hub.sent if "/" in file]
