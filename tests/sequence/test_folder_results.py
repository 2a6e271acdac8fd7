"""What results.json takes from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfa_hf.evaluation.records import write_records
from sfa_hf.sequence.folder_results import stage_transitions
from sfa_hf.sequence.run_folder import RunFolder, RunState


def records(scores: list[float], choices: int = 0) -> list[dict[str, Any]]:
    more = {"choices": ["c"] * choices} if choices else {}
    return [
        {"index": i, "prompt": "p", "target": "t", "score": score, **more} for i, score in enumerate(scores)
    ]


def test_rows_lost_and_gained_between_consecutive_stages(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    stages = {"law": [[0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 1, 0]], "text": [[-2.5], [-2.0], [-1.5]]}
    for task, of_task in stages.items():
        for row, scores in enumerate(of_task):
            path = folder.records_folder(row) / f"{task}.jsonl"
            write_records(path, records(scores, choices=5 if task == "law" else 0))
    hashes = {key: value for row in range(3) for key, value in folder.record_hashes(row, stages).items()}
    state = RunState(scores=[[0.0]] * 3, records=hashes)
    first, second = stage_transitions(folder, ["law", "text", "unscored"], state)
    assert first == {
        "task": "law",
        "from": 0,
        "to": 1,
        "kept": 1,
        "lost": 1,
        "gained": 2,
        "never": 0,
        "chance": 0.2,
        "lost_beyond_chance": 0.25,
        "gained_beyond_chance": 0.5,
    }
    assert (second["from"], second["to"], second["lost"], second["never"]) == (1, 2, 2, 1)
    assert second["lost_beyond_chance"] == (2 - 1 * 0.2 / 0.8) / 4
    assert stage_transitions(folder, ["law"], RunState(scores=[[0.0]] * 2, records=hashes)) == [first]
    assert stage_transitions(folder, ["law"], RunState()) == []
