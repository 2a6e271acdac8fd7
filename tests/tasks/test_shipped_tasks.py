"""The task files of configs/tasks: the demo's, those over real rows where there are any, the Hub's."""

# ruff: noqa: E501 - one case a line

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfa_hf.tasks import load_task

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "configs" / "tasks"
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize("name", ["math", "law", "code"])
def test_demo_tasks_need_nothing_but_the_package(name: str, tmp_path: Path) -> None:
    task = load_task(f"demo/{name}", search=[TASKS], data_dir=tmp_path)
    task.check()
    assert not {row.prompt for row in task.train_rows()} & {row.prompt for row in task.heldout_rows()}
    assert len(task.heldout_rows(200)) == 200


@pytest.mark.skipif(not DATA.is_dir(), reason="the real rows of ../shared/data are not here")
@pytest.mark.parametrize(
    ("name", "train", "heldout"), [("math", 1500, 200), ("law", 12380, 1475), ("code", 9344, 934)]
)
def test_tasks_over_real_rows(name: str, train: int, heldout: int) -> None:
    task = load_task(f"small/{name}", search=[TASKS], data_dir=DATA)
    task.check()
    assert (len(task.train_rows()), len(task.heldout_rows())) == (train, heldout)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real rows of ../shared/data are not here")
@pytest.mark.parametrize(
    ("name", "train", "heldout", "prompt_end", "target"),
    [
        ("gsm8k", 7473, 1319, "\nAnswer:", r" .*\n#### [\d,]+"),
        ("mathematics", 11250, 1500, "\nAnswer:", r" \S.*"),
        ("cuad", 10436, 1019, "\nAnswer:", " (Yes|No)"),
        ("tos", 3 * 1069, 3043, "unfair to the consumer?\nAnswer:", " (Yes|No)"),
        ("overruling", 1944, 456, "an earlier decision?\nAnswer:", " (Yes|No)"),
        ("casehold", 0, 500, "\nHolding:", r" \S.*"),
        ("django", 16000, 1550, "\nPython:", r" \S.*"),
        ("wikitext", 0, 1667, "", ".{1,1000}"),
    ],
)
def test_every_benchmark_over_local_files(
    name: str, train: int, heldout: int, prompt_end: str, target: str
) -> None:
    task = load_task(f"local/{name}", search=[TASKS], data_dir=DATA)
    rows = task.heldout_rows(few_shot=0)
    assert (len(task.train_rows()), len(rows)) == (train, heldout)
    assert all(row.prompt.endswith(prompt_end) for row in rows)
    assert all(re.match(target, row.target, re.DOTALL) for row in rows[:100])
    if name == "casehold":
        assert not any("Masked" in row.prompt or row.target.strip() in row.prompt for row in rows)


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_tasks_over_the_hub_are_valid_without_it(path: Path) -> None:
    config = load_task(path.stem, search=[TASKS], data_dir=ROOT).config
    assert config.name
    assert bool(config.train) == (path.stem not in HELDOUT_ONLY)


HELDOUT_ONLY = {"common", "cruxeval", "general", "humanevalplus", "math500", "mbppplus", "truthfulqa"}
ARC = {"question": "Why?", "choices": {"text": ["a b", "c"], "label": ["1", "2"]}, "answerKey": "2"}
HELLA = {"activity_label": "Skiing", "ctx": "She", "endings": ["goes.", " stays.", "c", "d"], "label": "1"}
WINO = {"sentence": "The cup is on _ and stays.", "option1": "it", "option2": "top", "answer": "2"}
TRUTH = {"question": "Why?", "mc1_targets": {"choices": ["no", "yes"], "labels": [0, 1]}}
TESTS = ["assert f(1) == 2", "assert f(2) == 3"]
#: Rows with the columns that each data set has on the Hub: how a prompt ends, the target, the choices.
ROWS: dict[str, tuple[dict, str, str, list[str]]] = {
    "svamp": ({"Body": "Two.", "Question": "How many?", "Answer": "8.0"}, "Two. How many?\nAnswer:", " 8.0", []),
    "aqua": ({"question": "x?", "options": ["A)1", "B)2"], "correct": "B"}, "A)1\nB)2\nAnswer:", " B", list("ABCDE")),
    "math500": ({"problem": "x?", "answer": "\\frac{1}{2}"}, "\\boxed{}.\n", "\\boxed{\\frac{1}{2}}", []),
    "mmlu": ({"question": "x?", "choices": list("wxyz"), "answer": 3}, "C. y\nD. z\nAnswer:", " D", list("ABCD")),
    "arc_easy": (ARC, "Question: Why?\nAnswer:", " c", ["a b", "c"]),
    "arc_challenge": (ARC, "Question: Why?\nAnswer:", " c", ["a b", "c"]),
    "hellaswag": (HELLA, "Skiing: She", " stays.", ["goes.", "stays.", "c", "d"]),
    "winogrande": (WINO, "The cup is on", " top and stays.", ["it and stays.", "top and stays."]),
    "truthfulqa": (TRUTH, "Q: Why?\nA:", " yes", ["no", "yes"]),
    "boolq": ({"question": "is it", "passage": "It is.", "answer": True}, "is it?\nAnswer:", " yes", ["yes", "no"]),
    "contractnli": ({"text": "It is.", "answer": "No"}, "identified?\nAnswer:", " No", ["Yes", "No"]),
    "cruxeval": ({"code": "def f(x): ...", "input": "1", "output": "2"}, "...\nassert f(1) ==", " 2", []),
    "humanevalplus": ({"prompt": "def f():\n", "canonical_solution": "    pass\n"}, "def f():\n", "    pass\n", []),
    "mbppplus": ({"prompt": "Do.", "code": "def f(): 1", "test_list": TESTS}, "== 3\n[BEGIN]\n", "def f(): 1\n[DONE]", []),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_hub_becomes_prompt_target_and_choices(name: str) -> None:
    from sfa_hf.tasks.templates import ListTemplate, Template

    row, prompt_end, target, choices = ROWS[name]
    config = load_task(name, search=[TASKS], data_dir=ROOT).config
    assert Template(str(config.prompt)).render(row).endswith(prompt_end)
    assert Template(str(config.target)).render(row) == target
    found = ListTemplate(config.choices).render(row) if config.choices else ()
    assert found == tuple(f" {choice}" for choice in choices)
    assert not found or target in found


def test_each_of_ledgar_s_labels_is_its_heading() -> None:
    from sfa_hf.tasks.templates import ListTemplate, Template

    config = load_task("ledgar", search=[TASKS], data_dir=ROOT).config
    choices = ListTemplate(config.choices or []).render({})
    assert len(set(choices)) == 100
    assert tuple(Template(str(config.target)).render({"label": label}) for label in range(100)) == choices
    assert choices[4] == " Applicable Laws"


@pytest.mark.parametrize(
    ("name", "source", "row", "prompt_end", "target"),
    [
        (
            "metamathqa",
            0,
            {"query": "1+1?", "response": "2\nThe answer is: 2"},
            "Response:",
            " 2\nThe answer is: 2",
        ),
        ("law", 0, {"context": "We (<HOLDING>)", "endings": list("abcde"), "label": 2}, "We\nHolding:", " c"),
        ("law", 1, {"sentence1": "Overruled.", "label": 1}, "Answer:", " Yes"),
        ("law", 2, {"text": "We may.", "labels": []}, "Answer:", " No"),
        (
            "mathematics",
            0,
            {"question": "b'Solve 2*x = 4.\\n'", "answer": "b'2\\n'"},
            "4.\nAnswer:",
            " 2",
        ),
        ("tos", 0, {"text": "We may.", "labels": [3]}, "consumer?\nAnswer:", " Yes"),
        (
            "casehold",
            0,
            {"context": "We (<HOLDING>)", "endings": list("abcde"), "label": 2},
            "Holding:",
            " c",
        ),
        ("overruling", 0, {"sentence1": "Overruled.", "label": 0}, "Answer:", " No"),
        ("gsm8k", 0, {"question": "1+1?", "answer": "2\n#### 2"}, "1+1?\nAnswer:", " 2\n#### 2"),
        ("wikitext", 0, {"text": " = Title = \n"}, "", "= Title ="),
        ("code", 0, {"instruction": "Do", "response": "done"}, "@@ Response\n", "done"),
    ],
)
def test_hub_columns_become_prompt_and_target(
    name: str, source: int, row: dict, prompt_end: str, target: str
) -> None:
    from sfa_hf.tasks.templates import Template

    config = load_task(name, search=[TASKS], data_dir=ROOT).config
    chosen = config.train[source]
    assert Template(chosen.prompt or config.prompt).render(row).endswith(prompt_end)
    assert Template(chosen.target or config.target).render(row) == target
