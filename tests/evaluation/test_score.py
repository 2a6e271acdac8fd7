from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import SCORINGS, model, rows, task, tokenizer

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation import EvaluationOptions, TaskScore, evaluate_task
from sfa_hf.evaluation.records import read_records
from sfa_hf.evaluation.scoring import choice, generate, perplexity
from sfa_hf.evaluation.scoring.choice import Choices
from sfa_hf.evaluation.scoring.perplexity import Surprise
from sfa_hf.tasks import Encoding, Row, Scoring


def scored(folder: Path, scoring: dict[str, Any], **options: Any) -> tuple[TaskScore, list[dict[str, Any]]]:
    path = folder / "records" / "small.jsonl"
    score = evaluate_task(
        model(),
        tokenizer(),
        task(folder, scoring),
        Encoding(),
        EvaluationOptions(**options),
        records_path=path,
    )
    return score, read_records(path)


@pytest.mark.parametrize("kind", SCORINGS)
def test_every_row_is_scored_once_and_in_order(kind: str, tmp_path: Path) -> None:
    score, records = scored(tmp_path, SCORINGS[kind], batch_size=4)
    assert [record["index"] for record in records] == list(range(23))
    assert [(r["prompt"], r["target"]) for r in records] == [(row.prompt, row.target) for row in rows()]
    assert score.rows == 23
    assert score.task == "small"


@pytest.mark.parametrize("kind", SCORINGS)
def test_the_score_is_what_its_records_say(kind: str, tmp_path: Path) -> None:
    score, records = scored(tmp_path, SCORINGS[kind], batch_size=4)
    weights = [record["tokens"] if kind == "perplexity" else 1 for record in records]
    values = [record["score"] for record in records]
    assert score.value == pytest.approx(np.average(values, weights=weights))
    if kind == "perplexity":
        assert score.metrics["nll"] == -score.value
    else:
        assert score.stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(23))
        assert score.metrics[score.metric] == score.value


@pytest.mark.parametrize("kind", SCORINGS)
def test_batch_size_changes_no_score(kind: str, tmp_path: Path) -> None:
    one, ones = scored(tmp_path, SCORINGS[kind], batch_size=1)
    many, manys = scored(tmp_path, SCORINGS[kind], batch_size=64)
    assert many.value == pytest.approx(one.value, abs=1e-6)
    assert [r.get("output") for r in ones] == [r.get("output") for r in manys]


@pytest.mark.parametrize("kind", ["choice", "perplexity"])
def test_a_model_that_computes_nan_has_no_score(kind: str, tmp_path: Path) -> None:
    spoilt = model()
    spoilt.lm_head.weight.data.fill_(math.nan)
    small, records = task(tmp_path, SCORINGS[kind]), tmp_path / "records.jsonl"
    with pytest.raises(ConfigError, match=r"^small: the model's log-likelihoods of its rows are nan"):
        evaluate_task(spoilt, tokenizer(), small, Encoding(), EvaluationOptions(), records_path=records)
    assert not records.exists()


def test_an_infinite_score_is_no_score(tmp_path: Path) -> None:
    spoilt = model()
    spoilt.register_forward_hook(lambda *given: _banned(given[-1]))
    small, records = task(tmp_path, SCORINGS["perplexity"]), tmp_path / "records.jsonl"
    with pytest.raises(ConfigError, match=r"^small: the model's nll is -inf"):
        evaluate_task(spoilt, tokenizer(), small, Encoding(), EvaluationOptions(), records_path=records)
    assert not records.exists()


def _banned(output: Any) -> Any:
    """All tokens but one have the probability 0."""
    output.logits[..., 1:] = -math.inf
    return output


def test_a_limit_scores_a_part_of_the_rows(tmp_path: Path) -> None:
    score, records = scored(tmp_path, SCORINGS["perplexity"], limit=5)
    _, everything = scored(tmp_path, SCORINGS["perplexity"])
    assert score.rows == len(records) == 5
    by_index = {record["index"]: record for record in everything}
    for record in records:
        assert record["log_likelihood"] == pytest.approx(
            by_index[record["index"]]["log_likelihood"], abs=1e-5
        )


def test_no_records_are_written_where_none_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    options = EvaluationOptions(records=False)
    small = task(tmp_path, SCORINGS["choice"])
    evaluate_task(model(), tokenizer(), small, Encoding(), options, records_path=path)
    assert not path.exists()


def test_cut_prompts_are_counted(tmp_path: Path) -> None:
    small = task(tmp_path, SCORINGS["choice"])
    score = evaluate_task(model(), tokenizer(), small, Encoding(max_length=24), EvaluationOptions())
    assert 0 < score.metrics["prompts_cut"] < 23


def test_no_network_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    scored(tmp_path, {"kind": "choice", "metric": "f1", "positive": "Yes"})


def test_generated_answers_are_compared_by_pattern() -> None:
    asked = [Row("p", "so #### 12", index=i) for i in range(5)]
    outputs = ["#### 3\n#### 12", "#### 12\n#### 3", "12", "####  12 ", "it is #### 12, surely"]
    scoring = Scoring(kind="generate", metric="exact_match", extract=r"####\s*(\d+)")
    judged = generate.judge("t", asked, outputs, scoring)
    assert [record["score"] for record in judged.records] == [1, 0, 0, 1, 1]
    assert [record["answer"] for record in judged.records] == ["12", "3", None, "12", "12"]
    assert judged.value == 0.6
    assert judged.stderr == pytest.approx(np.sqrt(0.6 * 0.4 / 4))
    assert judged.metrics == {"exact_match": 0.6, "answered": 0.8}


def test_answers_may_be_found_in_a_second_way() -> None:
    asked = [Row("p", "so #### 1,200", index=i) for i in range(4)]
    outputs = ["#### $1200", "that makes 1,200.", "#### 7, not 1200", "none"]
    patterns = {"extract": r"#### (-?\$?[\d,]+)", "also_extract": {"flexible": r"\d[\d,]*"}, "ignore": "[,$]"}
    scoring = Scoring(kind="generate", metric="exact_match", **patterns)
    judged = generate.judge("t", asked, outputs, scoring)
    assert judged.metrics == {
        "exact_match": 0.25,
        "answered": 0.5,
        "exact_match_flexible": 0.75,
        "answered_flexible": 0.75,
    }
    assert judged.value == 0.25
    assert [record["answer"] for record in judged.records] == ["$1200", None, "7,", None]
    assert [record["answer_flexible"] for record in judged.records] == ["1200", "1,200", "1200", None]
    assert [record["expected"] for record in judged.records] == ["1,200"] * 4


def test_f1_of_generated_answers() -> None:
    asked = [Row("p", target) for target in ("unfair", "unfair", "fair", "fair")]
    scoring = Scoring(kind="generate", metric="f1", positive="unfair")
    judged = generate.judge("t", asked, [" unfair\n", "fair", "unfair", "nonsense"], scoring)
    assert judged.value == judged.metrics["f1"] == 0.5
    assert judged.metrics == {
        "exact_match": 0.25,
        "answered": 1.0,
        "f1": 0.5,
        "precision": 0.5,
        "recall": 0.5,
    }
    assert judged.stderr > 0


def test_a_pattern_that_misses_a_target_is_refused_before_the_model_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"small.scoring.extract: .* the target of held-out row 0"):
        scored(tmp_path, {"kind": "generate", "extract": r"(\d+)"})


def test_choices_are_compared_by_what_the_task_divides_by() -> None:
    asked = [Row("p", " ab", choices=(" ab", " abcdef", " c"))]
    # per row: best in all; best by 1.0 a token, best by 0.5 a byte
    answers = [Choices([-3.0, -3.0, -2.0], [3, 1, 1])]
    best = {"none": " c", "tokens": " ab", "bytes": " abcdef"}
    for normalise, output in best.items():
        scoring = Scoring(kind="choice", metric="accuracy", normalise=normalise)
        judged = choice.judge("t", asked, answers, scoring)
        assert judged.records[0]["output"] == output
        assert judged.value == judged.records[0]["score"] == float(output == " ab")
        assert judged.metrics == {
            "accuracy": judged.value,
            "accuracy_undivided": 0.0,
            "accuracy_per_token": 1.0,
            "accuracy_per_byte": 0.0,
            "mass": pytest.approx(2 * math.exp(-3) + math.exp(-2)),
        }


def test_f1_of_choices() -> None:
    yes, no = Choices([-1.0, -2.0], [1, 1]), Choices([-2.0, -1.0], [1, 1])
    asked = [Row("p", target, choices=(" Yes", " No")) for target in (" Yes", " Yes", " No", " Yes")]
    judged = choice.judge(
        "t", asked, [yes, no, yes, yes], Scoring(kind="choice", metric="f1", positive="Yes")
    )
    assert judged.value == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert judged.metrics["accuracy"] == 0.5


def test_perplexity_pools_tokens_over_rows() -> None:
    asked = [Row("p", "abcd"), Row("p", "éé")]
    answers = [Surprise(-2.0, 4), Surprise(-6.0, 2)]
    judged = perplexity.judge("t", asked, answers, Scoring(kind="perplexity", metric="nll"))
    assert judged.value == pytest.approx(-8 / 6)
    assert judged.metrics["perplexity"] == pytest.approx(np.exp(8 / 6))
    assert judged.metrics["bits_per_byte"] == pytest.approx(8 / 8 / np.log(2))
    residuals = np.array([2.0, 6.0]) - 8 / 6 * np.array([4.0, 2.0])
    assert judged.stderr == pytest.approx(np.sqrt(2 * (residuals**2).sum()) / 6)


def test_records_survive_odd_line_separators(tmp_path: Path) -> None:
    scored(tmp_path, SCORINGS["generate"])  # byte-level answers hold control characters
    lines = (tmp_path / "records" / "small.jsonl").read_text(encoding="utf-8").split("\n")
    assert len([json.loads(line) for line in lines if line]) == 23
