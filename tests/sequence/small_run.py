"""Three small tasks, scored in three ways, on a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfa_hf.models import Recipe, resolve_model

TASKS = ("sums", "words", "signs")
SMALLEST = Recipe("pythia", hidden=32, layers=1, heads=2, vocabulary=300, documents=40, steps=2, batch=4)


def small_base(cache: Path) -> str:
    """Folder of the model: a GPT-NeoX, whose output head has another name in files than in memory."""
    return resolve_model("builtin:pythia", cache_dir=cache, recipe=SMALLEST)


def small_data(folder: Path) -> Path:
    """The tasks' rows, in a folder that they are written to."""
    for offset, task in enumerate(TASKS):
        rows = [{"q": f"{task} {i} is", "a": f" {(i + offset) % 10}"} for i in range(40)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def small_values(base: str, data: Path, output_dir: Path, steps: int) -> dict[str, Any]:
    """The config."""
    scorings: list[dict[str, Any]] = [
        {"kind": "generate", "max_new_tokens": 2},
        {"kind": "choice"},
        {"kind": "perplexity"},
    ]
    tasks = [
        {
            "name": name,
            "prompt": "{{ q }}",
            "target": "{{ a }}",
            "choices": [f" {digit}" for digit in range(10)],
            "train": [{"path": f"{name}.jsonl"}],
            "heldout": [{"path": f"{name}.jsonl", "limit": 12}],
            "scoring": scoring,
        }
        for name, scoring in zip(TASKS, scorings, strict=True)
    ]
    return {
        "model": {"name_or_path": base},
        "sequence": tasks,
        "method": {"name": "sfa", "beta": 0.5, "p": 0.5},
        "training": {
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "use_cpu": True,
        },
        "data": {"dir": str(data), "max_length": 32},
        "output_dir": str(output_dir),
    }
