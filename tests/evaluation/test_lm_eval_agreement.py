"""The same rows and prompts on the same saved model: lm-eval's numbers are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval_tasks import our_task, write_rows, write_tasks
from small_models import model, rows, tokenizer

from sfa_hf.evaluation import EvaluationOptions, TaskScore, evaluate_task
from sfa_hf.evaluation.records import read_records
from sfa_hf.tasks import Encoding, Row

pytest.importorskip("lm_eval", reason='lm-eval is not installed: pip install ".[lm-eval]"')
ROUNDING = 1e-5  # nats, in float32, between batches of other shapes


def answerable(folder: Path) -> list[Row]:
    """Rows of which the model answers about half as their targets say, so that scores are not all 0."""
    write_rows(folder, rows())
    _, found = ours(folder, "generate")
    return [
        Row(row.prompt, record["output"], (record["output"], *row.choices), row.index)
        if row.index % 2
        else Row(row.prompt, row.target, row.choices, row.index)
        for row, record in zip(rows(), found, strict=True)
    ]


def ours(folder: Path, kind: str) -> tuple[TaskScore, list[dict[str, Any]]]:
    path = folder / f"{kind}.jsonl"
    options = EvaluationOptions(batch_size=4)
    task = our_task(folder, kind)
    score = evaluate_task(network(), tokenizer(), task, Encoding(), options, records_path=path)
    return score, read_records(path)


def network() -> Any:
    return model("pythia")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("agreement")
    network().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    write_rows(folder, answerable(folder))
    write_tasks(folder / "tasks", str(folder / "rows.jsonl"))
    found = simple_evaluate(
        model=HFLM(pretrained=str(folder / "model"), dtype="float32", device="cpu", batch_size=3),
        tasks=["small_choice", "small_generate"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
    )
    assert found is not None
    return folder, found


def samples(found: dict[str, Any], task: str) -> list[dict[str, Any]]:
    return sorted(found["samples"][task], key=lambda sample: sample["doc_id"])


def test_log_likelihoods_and_accuracies_agree(theirs: tuple[Path, dict[str, Any]]) -> None:
    folder, found = theirs
    score, records = ours(folder, "choice")
    for record, sample in zip(records, samples(found, "small_choice"), strict=True):
        likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
        assert record["log_likelihoods"] == pytest.approx(likelihoods, abs=ROUNDING)
        assert record["score"] == sample["acc"]
    assert score.value == pytest.approx(found["results"]["small_choice"]["acc,none"])
    assert score.stderr == pytest.approx(found["results"]["small_choice"]["acc_stderr,none"])
    assert 0 < score.value < 1


def test_generated_texts_and_exact_matches_agree(theirs: tuple[Path, dict[str, Any]]) -> None:
    folder, found = theirs
    score, records = ours(folder, "generate")
    for record, sample in zip(records, samples(found, "small_generate"), strict=True):
        assert [record["output"]] == sample["filtered_resps"]
        assert record["score"] == sample["exact_match"]
    assert score.value == pytest.approx(found["results"]["small_generate"]["exact_match,none"])
    assert 0 < score.value < 1
