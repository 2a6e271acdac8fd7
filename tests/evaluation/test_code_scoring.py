"""Code tasks from rows to pass@k."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from distributed.harness import gloo, run_ranks
from small_models import model, tokenizer

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import EvaluationOptions, TaskScore, check_tasks, evaluate_task
from sfa_hf.evaluation.records import read_records
from sfa_hf.evaluation.sandbox import Outcome, Verdict, available_box, boxes
from sfa_hf.evaluation.scoring import code
from sfa_hf.evaluation.scoring.code import Attempt
from sfa_hf.tasks import Encoding, Row, Scoring, Task, load_task

ROWS = [
    {
        "prompt": f"def f{i}(x):\n",
        "solution": f"    return x + {i}\n" if i % 3 else "    return None\n",
        "test": f"def check(f):\n    assert f(1) == {1 + i}\n",
        "name": f"f{i}",
    }
    for i in range(6)
]
# whatever the model writes, it stands in a comment behind the reference: rows 0 and 3 fail, the others pass
REFERENCE = "{{ prompt }}{{ solution }}# {{ completion | replace('\\n', ' ') | replace('\\r', ' ') }}\n"
TEST = "{{ test }}\ncheck({{ name }})"

needs_sandbox = pytest.mark.skipif(available_box() is None, reason="no sandbox on this machine")


def small_task(folder: Path, rows: list[dict[str, str]] = ROWS, **section: Any) -> Task:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [{"path": "rows.jsonl"}]
    spec = {
        "name": "programs",
        "prompt": "{{ prompt }}",
        "target": "{{ solution }}",
        "train": source,
        "heldout": source,
        "scoring": {
            "kind": "code",
            "max_new_tokens": 6,
            "code": {"program": REFERENCE, "test": TEST, "memory_mb": 256, **section},
        },
    }
    return load_task(spec, search=[], data_dir=folder)


def scored(folder: Path, batch_size: int = 32, **section: Any) -> tuple[TaskScore, list[dict[str, Any]]]:
    path = folder / "records.jsonl"
    options = EvaluationOptions(batch_size=batch_size, code_workers=2)
    task = small_task(folder, **section)
    score = evaluate_task(model(), tokenizer(), task, Encoding(), options, records_path=path)
    return score, read_records(path) if path.exists() else []


@needs_sandbox
def test_programs_are_run_and_their_share_of_passes_is_the_score(tmp_path: Path) -> None:
    score, records = scored(tmp_path)
    assert (score.metric, score.value, score.rows) == ("pass@1", 4 / 6, 6)
    assert score.stderr == pytest.approx((4 / 6 * 2 / 6 / 5) ** 0.5)
    assert score.metrics == {"pass@1": 4 / 6, "failed": 2 / 6, "prompts_cut": 0.0}
    assert [record["score"] for record in records] == [0, 1, 1, 0, 1, 1]
    (attempt,) = records[3]["completions"]
    assert attempt["outcome"] == "failed"
    assert attempt["detail"] == "AssertionError: "


@needs_sandbox
@pytest.mark.slow
def test_samples_differ_and_depend_on_their_row_alone(tmp_path: Path) -> None:
    sampling = {"samples": 4, "k": [1, 4], "temperature": 1.0, "top_p": 0.95}
    score, records = scored(tmp_path, **sampling)
    texts = [[each["text"] for each in record["completions"]] for record in records]
    assert all(len(set(row)) > 1 for row in texts)
    assert score.metrics["pass@4"] == score.metrics["pass@1"] == 4 / 6
    _, one_by_one = scored(tmp_path, batch_size=1, **sampling)
    assert one_by_one == records
    _, reseeded = scored(tmp_path, seed=1, **sampling)
    assert reseeded != records


@needs_sandbox
def test_greedy_completions_are_the_same_every_time(tmp_path: Path) -> None:
    assert scored(tmp_path)[1] == scored(tmp_path, batch_size=2)[1]


@needs_sandbox
def test_what_the_model_writes_is_what_runs(tmp_path: Path) -> None:
    _, records = scored(tmp_path, program="said = {{ completion | tojson }}\n", test="assert said == ''")
    assert {record["score"] for record in records} == {0.0}
    assert all(record["completions"][0]["text"] for record in records)
    _, records = scored(tmp_path, program="said = {{ completion | tojson }}\n", test="assert len(said) > 0")
    assert {record["score"] for record in records} == {1.0}


def on_each_process(folder: str) -> float:
    with gloo():
        own = Path(folder, os.environ["RANK"])
        own.mkdir()
        score, _ = scored(own, batch_size=3, samples=3, temperature=1.0)
        return score.value


@needs_sandbox
@pytest.mark.slow
def test_two_processes_share_the_programs_and_change_nothing(tmp_path: Path) -> None:
    score, records = scored(tmp_path, batch_size=3, samples=3, temperature=1.0)
    assert run_ranks(on_each_process, 2, folder=str(tmp_path)) == [score.value] * 2
    assert read_records(tmp_path / "0" / "records.jsonl") == records


def test_pass_at_k_of_several_samples() -> None:
    kinds = [Outcome.PASSED, Outcome.FAILED, Outcome.TIMEOUT, Outcome.FAILED]
    answers = [[Attempt("", Verdict(each)) for each in kinds], [Attempt("", Verdict(kinds[1]))] * 4]
    rows = [Row("p", "t", index=i) for i in range(2)]
    scoring = Scoring(
        kind="code", metric="pass@1", code={"test": "", "samples": 4, "k": [1, 2], "temperature": 1.0}
    )
    judged = code.judge("t", rows, answers, scoring)
    assert judged.value == judged.metrics["pass@1"] == pytest.approx(1 / 8)
    assert judged.metrics["pass@2"] == pytest.approx(1 / 4)
    assert (judged.metrics["failed"], judged.metrics["timeout"]) == (6 / 8, 1 / 8)
    assert [record["score"] for record in judged.records] == [1 / 4, 0]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"test": "{{ tests }}"}, "programs.heldout.0.test: .* has no column 'tests'"),
        ({"program": "{{ x }}"}, "programs.heldout.0.program: .* has no column 'x'"),
        ({"test": "{{"}, r"scoring.code.test: is .* .must be a Jinja template"),
        ({"k": [1, 10]}, "scoring.code: .*pass@10 needs samples >= 10, not 1"),
        ({"k": [5], "samples": 5, "temperature": 1}, "scoring.code.k: .*1 among them"),
        ({"samples": 5}, "scoring.code: .*with temperature 0 all samples are the same"),
        ({"sample": 5}, "scoring.code.sample: is not a known key .did you mean 'samples'"),
    ],
)
def test_a_wrong_code_section_is_one_clear_error(section: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line):
        small_task(tmp_path, **section).check()


def test_code_needs_its_section_and_no_other_kind_has_one() -> None:
    for wrong in ({"kind": "code"}, {"kind": "generate", "code": {"test": ""}}):
        with pytest.raises(ValueError, match="needs a code section"):
            Scoring.model_validate(wrong)


def test_code_tasks_are_refused_early_where_nothing_can_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (boxes.Bubblewrap, boxes.Namespaces):
        monkeypatch.setattr(kind, "command", lambda *_: ["/bin/false"])
    caches = (boxes.available_box, boxes.problem_with)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"^evaluation.allow_unsandboxed_code: is false"):
            check_tasks([small_task(tmp_path)], EvaluationOptions())
        check_tasks([small_task(tmp_path)], EvaluationOptions(allow_unsandboxed_code=True))
    finally:
        for cache in caches:
            cache.cache_clear()
