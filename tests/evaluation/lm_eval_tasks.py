"""One small task, said in lm-eval's words and in ours, over the same file of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sfa_hf.tasks import Row, Task, load_task

SCORINGS: dict[str, dict[str, Any]] = {
    "choice": {"kind": "choice"},
    "generate": {"kind": "generate", "max_new_tokens": 8, "stop": ["e"]},
}


def our_task(folder: Path, kind: str) -> Task:
    source = [{"path": "rows.jsonl"}]
    spec = {
        "name": kind,
        "prompt": "{{ prompt }}",
        "target": "{{ target }}",
        "choices": "{{ choices }}",
        "heldout": source,
        "scoring": SCORINGS[kind],
    }
    return load_task(spec, search=[], data_dir=folder)


def write_rows(folder: Path, rows: list[Row]) -> None:
    lines = [{"prompt": row.prompt, "target": row.target, "choices": row.choices} for row in rows]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def write_tasks(folder: Path, data: str) -> None:
    """YAML files of the two tasks, ``small_choice`` and ``small_generate``, for an include_path."""
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        "target_delimiter": "",
    }
    generation = {"until": ["e"], "max_gen_toks": 8, "do_sample": False}
    own: dict[str, dict[str, Any]] = {
        "choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{choices.index(target)}}",
            "metric_list": [{"metric": "acc"}],
        },
        "generate": {
            "output_type": "generate_until",
            "generation_kwargs": generation,
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    }
    folder.mkdir(exist_ok=True)
    for kind, changes in own.items():
        content = {"task": f"small_{kind}", **shared, **changes}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
