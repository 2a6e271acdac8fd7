"""Tasks over local files: what is read, and the one line that each bad input gets."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfa_hf.errors import ConfigError
from sfa_hf.tasks import Task, load_task

ROWS = [{"q": f"question {i}", "a": f"answer {i}", "kind": "odd" if i % 2 else "even"} for i in range(6)]


def task(folder: Path, file: str, **changes: Any) -> Task:
    source = {"path": file, **changes.pop("source", {})}
    spec = {
        "name": "t",
        "prompt": "{{ q }}:",
        "target": " {{ a }}",
        "train": [source],
        "heldout": [source],
        "scoring": {"kind": "generate"},
        **changes,
    }
    return load_task(spec, search=[], data_dir=folder)


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "x.json": lambda path: path.write_text(json.dumps(ROWS)),
    "x.jsonl": lambda path: write_lines(path, ROWS),
    "bom.jsonl": lambda path: path.write_text("".join(json.dumps(r) + "\n\n" for r in ROWS), "utf-8-sig"),
    "x.jsonl.gz": write_gzip,
    "x.csv": write_csv,
    "x.parquet": lambda path: datasets.Dataset.from_list(ROWS).to_parquet(str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    rows = task(tmp_path, name).train_rows()
    assert [(row.prompt, row.target) for row in rows] == [(f"{r['q']}:", f" {r['a']}") for r in ROWS]


def test_a_dataset_folder_is_read_by_split(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write_lines(tmp_path / "folder" / "train.jsonl", ROWS[:4])
    write_lines(tmp_path / "folder" / "test.jsonl", ROWS[4:])
    assert len(task(tmp_path, "folder", source={"split": "test"}).train_rows()) == 2
    with pytest.raises(ConfigError, match=r"t\.train\.0\.split: .* train, test"):
        task(tmp_path, "folder").check()


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
@pytest.mark.parametrize("value", ["2018-04-17", "007", "None", "NA", "1e3", " x ", "true", "a\nb", '"'])
def test_text_is_not_reinterpreted(name: str, value: str, tmp_path: Path) -> None:
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["q", "a"], [value, value]])
    write_lines(tmp_path / "x.jsonl", [{"q": value, "a": value}])
    assert task(tmp_path, name, target="{{ a }}").train_rows()[0].target == value


def test_rows_are_chosen_by_where_max_chars_limit_and_shuffle(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [*ROWS, {"q": "long " * 20, "a": "x", "kind": "odd"}])

    def prompts(**source: Any) -> list[str]:
        return [row.prompt for row in task(tmp_path, "x.jsonl", source=source).train_rows()]

    assert prompts(where={"kind": "odd"}, max_chars=50) == ["question 1:", "question 3:", "question 5:"]
    assert prompts(where={"kind": ["odd", "even"], "a": "answer 2"}) == ["question 2:"]
    assert prompts(limit=2) == ["question 0:", "question 1:"]
    shuffled = prompts(shuffle=True, seed=1)
    assert shuffled != prompts()
    assert sorted(shuffled) == sorted(prompts())
    assert prompts(shuffle=True, seed=1, limit=3) == shuffled[:3]


def test_only_if_is_an_expression(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [{"q": str(i), "a": "a", "tags": ["t"] * (i % 2)} for i in range(4)])
    for where, kept in {"tags": ["1", "3"], "not tags": ["0", "2"], "q | int > 2": ["3"]}.items():
        rows = task(tmp_path, "x.jsonl", source={"only_if": where}).train_rows()
        assert [row.prompt.removesuffix(":") for row in rows] == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "not labels",
            r"t\.train\.0\.only_if: x\.jsonl row 1 has no value in column 'labels' \(its columns: q, a, kind",
        ),
        ("labels", r"t\.train\.0\.only_if: x\.jsonl row 1 has no value in column 'labels'"),
        ("q > 3", r"t\.train\.0\.only_if: x\.jsonl row 1: it fails with TypeError"),
        ("not (", r"task t\.train\.0\.only_if: is 'not \('"),
    ],
)
def test_an_expression_that_fails_is_one_line(where: str, message: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", ROWS)
    with pytest.raises(ConfigError, match=f"^{message}"):
        task(tmp_path, "x.jsonl", source={"only_if": where}).train_rows()


def test_plain_text_comes_in_blocks_of_whole_lines(tmp_path: Path) -> None:
    lines = [f"line {i} " + "word " * (i % 60) for i in range(200)] + ["", "long " * 500]
    (tmp_path / "x.txt").write_text("\n".join(lines), encoding="utf-8")
    small = task(tmp_path, "x.txt", prompt="", target="{{ text }}", scoring={"kind": "perplexity"})
    texts = [row.target for row in small.heldout_rows()]
    assert " ".join(" ".join(texts).split()) == " ".join(" ".join(lines).split())
    assert max(map(len, texts)) <= 1000
    assert all(len(a) + len(b) > 600 for a, b in pairwise(texts))  # blocks are filled, not one line each


def test_a_task_without_training_rows_can_be_scored_and_not_trained(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", ROWS)
    only_scored = task(tmp_path, "x.jsonl", train=[])
    assert len(only_scored.heldout_rows()) == 6
    with pytest.raises(ConfigError, match=r"^t\.train: names no rows to train on"):
        only_scored.check()


def test_a_source_may_have_templates_of_its_own(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", ROWS[:1])
    rows = task(tmp_path, "x.jsonl", source={"prompt": "{{ kind }}", "target": "!"}).train_rows()
    assert (rows[0].prompt, rows[0].target) == ("even", "!")


def test_choices_come_with_held_out_rows_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [{"q": "?", "a": "b", "options": ["b", "c"]}])
    loaded = task(tmp_path, "x.jsonl", target="{{ a }}", choices="{{ options }}", scoring={"kind": "choice"})
    assert loaded.heldout_rows()[0].choices == ("b", "c")
    assert loaded.train_rows()[0].choices == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 80))
def test_a_limit_takes_its_share_of_every_source(tmp_path: Path, small: int, large: int, limit: int) -> None:
    write_lines(tmp_path / "a.jsonl", [{"q": f"a{i}", "a": "1"} for i in range(small)])
    write_lines(tmp_path / "b.jsonl", [{"q": f"b{i}", "a": "1"} for i in range(large)])
    loaded = task(tmp_path, "a.jsonl", heldout=[{"path": "a.jsonl"}, {"path": "b.jsonl"}])
    everything, some = loaded.heldout_rows(), loaded.heldout_rows(limit)
    assert [row.index for row in everything] == list(range(small + large))
    assert some == [everything[row.index] for row in some] == loaded.heldout_rows(limit)
    assert len(some) == min(limit, small + large)
    assert set(some) <= set(loaded.heldout_rows(limit + 1))
    share = sum(row.prompt.startswith("a") for row in some)
    assert abs(share - len(some) * small / (small + large)) <= 1


BAD_FILES: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("gone.jsonl", None, r"t\.train\.0\.path: there is no file .*gone\.jsonl"),
    "empty": ("x.jsonl", b"", r"x\.jsonl is empty"),
    "blank": ("x.jsonl", b"\n\n", r"yields no rows"),
    "empty list": ("x.json", b"[]", r"yields no rows"),
    "header alone": ("x.csv", b"q,a\n", r"yields no rows"),
    "not JSON lines": ("x.jsonl", b'{"q": 1, "a": 1}\n{"q": \n', r"x\.jsonl: line 2 is not JSON"),
    "not JSON": ("x.json", b'[{"q": 1,\n "a" 1}]', r"x\.json: is not JSON: .* on line 2"),
    "not objects": ("x.jsonl", b"[1]\n", r"item 1 is a int, not an object"),
    "not a list": ("x.json", b'{"q": 1}', r"holds one dict, not a list"),
    "not UTF-8": ("x.jsonl", b'{"q": "\xff"}', r"not UTF-8"),
    "not gzip": ("x.jsonl.gz", b"{}", r"x\.jsonl\.gz: .*gzip"),
    "gzip cut short": ("x.jsonl.gz", gzip.compress(b'{"q": 1, "a": 2}' * 99)[:-9], r"x\.jsonl\.gz: "),
    "not parquet": ("x.parquet", b"hello, world", r"x\.parquet: "),
    "ragged CSV": ("x.csv", b"q,a\n1,2,3\n", r"line 2 has more cells"),
    "missing column": (
        "x.jsonl",
        b'{"q": "x", "answer": "y"}',
        r"t\.train\.0\.target: x\.jsonl row 1 has no column 'a' \(its columns: q, answer\)",
    ),
    "column missing later": ("x.jsonl", b'{"q": "x", "a": "y"}\n{"q": "x"}', r"row 2 has no column 'a'"),
    "null target": (
        "x.jsonl",
        b'{"q": "x", "a": "y"}\n{"q": "x", "a": null}',
        r"t\.train\.0\.target: x\.jsonl row 2 has null in column 'a'",
    ),
    "null in CSV": ("x.csv", b"q,a\nx,\n", r"row 1 has null in column 'a'"),
    "null prompt": ("x.jsonl", b'{"q": null, "a": "y"}', r"t\.train\.0\.prompt: .*null in column 'q'"),
    "nested lines": ("x.jsonl", b'{"q": 1, "a": 1}\n' + b"[" * 100_000, "line 2 is nested too deep"),
    "nested list": ("x.json", b"[" * 100_000, r"x\.json: is nested too deep"),
    "half a character": ("x.jsonl", b'{"q": "x", "a": "\\ud800"}', r"x\.jsonl row 1 holds half a character"),
    "half in a list": ("x.json", b'[{"q": "\\uDFFF"}]', r"x\.json row 1 holds half a character"),
    "half inside": ("x.jsonl", b'{"q": [{"z": "\\ud800"}]}', r"x\.jsonl row 1 holds half a character"),
    "endless digits": ("x.jsonl", b'{"q": ' + b"1" * 5000 + b"}", r"x\.jsonl: line 1: Exceeds the limit"),
    "gzip with wrong bits": ("x.jsonl.gz", gzip.compress(b"abc" * 99)[:15] + b"\xff" * 40, r"x\.jsonl\.gz: "),
    "no such thing": ("../a/b/c", None, r"neither a data file nor a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_FILES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        task(tmp_path, name).check()
    assert "\n" not in str(caught.value)


def test_whole_characters_in_two_halves_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"q": "\\ud83d\\ude00", "a": "\\\\ud800"}')
    (row,) = task(tmp_path, "x.jsonl").train_rows()
    assert (row.prompt, row.target) == ("\U0001f600:", r" \ud800")


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_a_file_that_is_none_is_one_line_at_once(kind: str, tmp_path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "x.jsonl")
    elif kind == "device":
        (tmp_path / "x.jsonl").symlink_to("/dev/full")
    else:
        (tmp_path / "x.jsonl").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="there is no file"):
        task(tmp_path, "x.jsonl").check()


def test_a_file_that_unpacks_without_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfa_hf.tasks.text_files._MOST_UNPACKED", 1000)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"\n" * 10**6))
    with pytest.raises(ConfigError, match=r"unpacks to more than 100 times its \d+ bytes"):
        task(tmp_path, "x.jsonl.gz").check()


def test_a_line_without_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfa_hf.tasks.text_files._LONGEST_LINE", 1000)
    (tmp_path / "x.jsonl").write_text("\n" + "x" * 1001)
    with pytest.raises(ConfigError, match=r"x\.jsonl: line 2 has more than 1000 characters"):
        task(tmp_path, "x.jsonl").check()


def test_a_target_that_is_no_choice_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [{"q": "?", "a": "Yes"}, {"q": "?", "a": "yes"}])
    loaded = task(tmp_path, "x.jsonl", target="{{ a }}", choices=["Yes", "No"], scoring={"kind": "choice"})
    with pytest.raises(
        ConfigError, match=r"t\.heldout\.0\.target: x\.jsonl row 2 has target 'yes' .*'Yes', 'No'"
    ):
        loaded.check()


def test_where_names_the_nearest_column(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"t\.train\.0\.where\.kindd: .*did you mean 'kind'"):
        task(tmp_path, "x.jsonl", source={"where": {"kindd": 1}}).check()


def test_the_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"t\.train\.0\.path: dataset openai/gsm8k needs the Hugging Face Hub"
    ):
        task(tmp_path, "openai/gsm8k").check()


BAD_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"promt": "x"}, r"task t\.promt: is not a known key \(did you mean 'prompt'"),
    "unknown key in a source": (
        {"train": [{"path": "x", "spilt": "a"}]},
        r"task t\.train\.0\.spilt: .*'split'",
    ),
    "no source": ({"heldout": []}, r"task t\.heldout: is \[\]"),
    "wrong type": ({"train": [{"path": "x", "limit": "many"}]}, r"task t\.train\.0\.limit: is 'many'"),
    "limit 0": ({"train": [{"path": "x", "limit": 0}]}, r"task t\.train\.0\.limit: is 0 \(must be greater"),
    "kind": ({"scoring": {"kind": "guess"}}, r"task t\.scoring\.kind: is 'guess' .*known: choice, code"),
    "metric": ({"scoring": {"kind": "generate", "metric": "nll"}}, r"task t\.scoring: .*exact_match"),
    "second pattern": (
        {"scoring": {"kind": "generate", "extract": "x", "also_extract": {"any": "("}}},
        r"task t\.scoring\.also_extract: is .* regular expression",
    ),
    "second pattern alone": (
        {"scoring": {"kind": "generate", "also_extract": {"any": "x"}}},
        r"task t\.scoring: .*beside the extract",
    ),
    "few-shot": ({"few_shot": {"cuont": 1}}, r"task t\.few_shot\.cuont: .*did you mean 'count'"),
    "regex": ({"scoring": {"kind": "generate", "extract": "("}}, r"task t\.scoring\.extract: is '\('"),
    "template": ({"prompt": "{{ q"}, r"task t\.prompt: is '{{ q' \(must be a Jinja template"),
    "no choices": ({"scoring": {"kind": "choice"}}, r"task t: .*needs choices"),
    "choices of a wrong type": ({"choices": 3}, r"task t\.choices: is 3"),
    "name": ({"name": "../x"}, r"\.name: is '\.\./x'"),
    "rows": ({"train": [{"path": "generated:math", "split": "train"}]}, r"task t\.train\.0: .*needs rows"),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_bad_task_is_named_by_its_key(case: str, tmp_path: Path) -> None:
    change, message = BAD_SPECS[case]
    with pytest.raises(ConfigError, match=message) as caught:
        task(tmp_path, "x.jsonl", **change)
    assert "\n" not in str(caught.value)


def test_tasks_are_found_by_name_in_folders_and_by_path(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "configs" / "tasks" / "demo" / "math.yaml"
    for spec, folder in (("math", file.parent), ("demo/math", file.parents[1]), (str(file), tmp_path)):
        assert load_task(spec, search=[tmp_path, folder], data_dir=tmp_path).name == "math"
    with pytest.raises(ConfigError, match=r"there is no task 'mth' \(did you mean 'math'"):
        load_task("mth", search=[file.parent], data_dir=tmp_path)
    with pytest.raises(
        ConfigError, match=r"gone.yaml: cannot be read \(there is no such file; .*known: .*math"
    ):
        load_task("gone.yaml", search=[file.parent], data_dir=tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\xff"])
def test_a_bad_task_file_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        load_task("bad", search=[tmp_path], data_dir=tmp_path)
    assert "\n" not in str(caught.value)
