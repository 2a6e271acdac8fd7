"""Files as people have them: every format, packed or not, in folders, as parts; what is refused by name."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest

from sfa_hf.errors import ConfigError
from sfa_hf.tasks import load_task

ROWS = [{"q": f"Is {i} 007?", "a": f"2024-01-{i:02}"} for i in range(1, 7)]
PAIRS = [(row["q"], row["a"]) for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "q,a\n" + "".join(f"{q},{a}\n" for q, a in PAIRS)


def pairs(folder: Path, path: str, prompt: str = "{{ q }}", target: str = "{{ a }}", **source: Any) -> Any:
    rows = [{"path": path, **source}]
    spec = {"name": "t", "prompt": prompt, "target": target, "heldout": rows, "scoring": {"kind": "generate"}}
    return [(row.prompt, row.target) for row in load_task(spec, data_dir=folder).heldout_rows()]


def zipped(path: Path, *members: tuple[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members:
            archive.writestr(name, text)


def zstandard(path: Path, text: str) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(text.encode())


FORMATS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "x.json": (lambda path: path.write_text(json.dumps(ROWS)), {}),
    "x.jsonl": (lambda path: path.write_text(LINES), {}),
    "x.ndjson": (lambda path: path.write_text(LINES), {}),
    "X.JSONL": (lambda path: path.write_text(LINES), {}),
    "lines.json": (lambda path: path.write_text(LINES), {}),
    "list.jsonl": (lambda path: path.write_text("\n" + json.dumps(ROWS, indent=1)), {}),
    "wrapped.json": (lambda path: path.write_text(json.dumps({"version": "1", "tags": ["x"], "data": ROWS})), {}),
    "two.json": (lambda path: path.write_text(json.dumps({"test": ROWS[:1], "train": ROWS})), {"field": "train"}),
    "x.csv": (lambda path: path.write_text(CSV), {}),
    "X.CSV": (lambda path: path.write_text(CSV), {}),
    "excel.csv": (lambda path: path.write_text(CSV.replace("\n", "\r\n"), "utf-8-sig"), {}),
    "headerless.csv": (lambda path: path.write_text(CSV.partition("\n")[2]), {"columns": ["q", "a"]}),
    "semicolon.csv": (lambda path: path.write_text(CSV.replace(",", ";")), {"separator": ";"}),
    "x.tsv": (lambda path: path.write_text(CSV.replace(",", "\t")), {}),
    "x.parquet": (lambda path: datasets.Dataset.from_list(ROWS).to_parquet(str(path)), {}),
    "[1].parquet": (lambda path: datasets.Dataset.from_list(ROWS).to_parquet(str(path)), {}),
    "saved": (lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path), {}),
    "x.jsonl.gz": (lambda path: path.write_bytes(gzip.compress(LINES.encode())), {}),
    "x.csv.bz2": (lambda path: path.write_bytes(bz2.compress(CSV.encode())), {}),
    "x.json.xz": (lambda path: path.write_bytes(lzma.compress(json.dumps(ROWS).encode())), {}),
    "x.jsonl.zst": (lambda path: zstandard(path, LINES), {}),
    "x.zip": (lambda path: zipped(path, ("__MACOSX/._r.csv", "x"), ("in/rows.CSV", CSV)), {}),
    "x.jsonl.zip": (lambda path: zipped(path, ("rows", LINES)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_the_file_says(name: str, tmp_path: Path) -> None:
    write, source = FORMATS[name]
    write(tmp_path / name)
    assert pairs(tmp_path, name, **source) == PAIRS


def test_an_arrow_file_and_saved_splits_are_read(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": rows, "dev": rows.select(range(2))}).save_to_disk(tmp_path / "saved")
    assert pairs(tmp_path, "saved/train/data-00000-of-00001.arrow") == PAIRS
    assert pairs(tmp_path, "saved", split="dev") == PAIRS[:2]
    assert pairs(tmp_path, "saved", split="train[4:]+dev[:1]") == PAIRS[4:] + PAIRS[:1]


def test_a_folder_is_read_as_its_files_are(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    codes = [("007", "1.50"), ("010", "1e5"), ("None", "2024-01-02")]
    (folder / "TRAIN.CSV").write_text("q,a\n" + "".join(f"{q},{a}\n" for q, a in codes))
    (folder / "test.jsonl").write_text('{"q": "1", "a": "2024-01-02"}')
    (folder / "LICENSE").write_text("MIT")
    assert pairs(tmp_path, "codes", split="train") == codes
    assert pairs(tmp_path, "codes", split="test") == [("1", "2024-01-02")]
    assert pairs(tmp_path, "codes", split="train[:1]+test") == [codes[0], ("1", "2024-01-02")]
    assert len(pairs(tmp_path, "codes", split="all")) == 4
    assert pairs(tmp_path, "codes/*.[Cc][Ss][Vv]") == codes


def test_a_folder_s_card_names_its_configurations(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.csv").write_text("q,a\n007,1\n")
    (folder / "b.csv").write_text("q,a\n008,2\n")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in "ab")
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# Set\n")
    assert pairs(tmp_path, "set", name="b") == [("008", "2")]


@pytest.mark.parametrize(
    "part", ["train[:90%]", "train[90%:]", "train[-2:]", "train[1:3]+train[:1]", "train"]
)
def test_a_part_is_the_one_that_datasets_takes(part: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(LINES)
    hub = datasets.load_dataset(
        "json", data_files=str(tmp_path / "x.jsonl"), split=part, cache_dir=str(tmp_path)
    )
    assert [prompt for prompt, _ in pairs(tmp_path, "x.jsonl", split=part)] == list(hub["q"])


def test_train_and_held_out_parts_of_a_file_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(LINES)
    parts = [pairs(tmp_path, "x.jsonl", split=part) for part in ("train[:60%]", "train[60%:]")]
    assert parts[0] + parts[1] == PAIRS


def test_cells_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"q,a\n{'long ' * 100_000},1\n")
    assert pairs(tmp_path, "x.csv")[0][0] == "long " * 100_000


def test_rows_are_chosen_by_their_position(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(LINES)
    assert pairs(tmp_path, "x.jsonl", only_if="index >= 4") == PAIRS[4:]
    assert pairs(tmp_path, "x.jsonl", only_if="loop.index % 2 == 0") == PAIRS[1::2]
    assert pairs(tmp_path, "x.jsonl", split="train[2:]", only_if="index == 0") == PAIRS[2:3]
    (tmp_path / "own.jsonl").write_text('{"q": "x", "a": "y", "index": 7}')
    assert pairs(tmp_path, "own.jsonl", only_if="index == 7 and loop.index == 1") == [("x", "y")]


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    row = {"Best Answer": "4", "q-1": "2+2", "items": 3, "deep": {"keys": "k"}, "row's": "r"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    prompt = '{{ row["q-1"] }} {{ row["row\'s"] }} {{ items }} {{ row.items }} {{ deep.keys }}'
    assert pairs(tmp_path, "x.jsonl", prompt, '{{ row["Best Answer"] }}') == [("2+2 r 3 3 k", "4")]
    with pytest.raises(
        ConfigError, match=r"x\.jsonl row 1 has no column 'best answer' \(its columns: Best A"
    ):
        pairs(tmp_path, "x.jsonl", "q", '{{ row["best answer"] }}')
    with pytest.raises(ConfigError, match="yields a function, not text"):
        pairs(tmp_path, "x.jsonl", "q", "{{ row.values }}")


NULLS = [
    "{{ x[0] }}",
    "{{ x }}",
    "{{ x | join }}",
    "{{ 'a' ~ x[0] }}",
    "{{ x | first }}",
    "{{ d.n.m[1] }}",
    "{{ f }}",
]


@pytest.mark.parametrize("template", NULLS)
def test_a_null_inside_a_value_is_never_text(template: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"x": [null, "y"], "d": {"n": {"m": [1, null]}}, "f": NaN}')
    with pytest.raises(ConfigError, match=r"x\.jsonl row 1 has null in column '(x\[0\]|d\.n\.m\[1\]|f)'"):
        pairs(tmp_path, "x.jsonl", "q", template)


def test_a_null_inside_a_value_can_be_allowed_for(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"x": [null, "y"], "n": null}')
    target = "{{ x[0] | default('-') }}{{ x[1] }}{{ 1 if x[0] is none }}{{ 2 if n is none }}{{ 3 if x[1] is none }}"
    assert pairs(tmp_path, "x.jsonl", "q", target) == [("q", "-y12")]


def bad(folder: Path, file: str, content: str | bytes, **source: Any) -> str:
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        pairs(folder, file, **source)
    return str(caught.value)


# ruff: noqa: E501 - one case a line
REFUSED: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "semicolons": ("x.csv", "q;a\n1;2\n", {}, 'separator seems to be a semicolon (separator: ";"), not a comma'),
    "tabs": ("x.csv", "q\ta\n1\t2\n", {}, 'separator seems to be a tab (separator: "\\t"), not a comma'),
    "commas in .tsv": ("x.tsv", "q,a\n1,2\n", {}, 'separator seems to be a comma (separator: ","), not a tab'),
    "a name twice": ("x.csv", "q,a,q\n1,2,3\n", {}, "x.csv: two of its columns are named 'q'"),
    "columns, too few": ("x.csv", "1,2,3\n", {"columns": ["q", "a"]}, "first line has 3 cells, and columns names 2"),
    "columns and a header": ("x.csv", CSV, {"columns": ["q", "a"]}, "leave columns out"),
    "columns of JSON": ("x.json", "[]", {"columns": ["q"]}, "t.heldout.0.columns: does nothing for a .json file"),
    "field of lines": ("x.jsonl", LINES, {"field": "q"}, "t.heldout.0.field: does nothing for a .jsonl file"),
    "two lists": ("x.json", '{"a": [{}], "b": [{}]}', {}, "holds lists under a, b: choose one by field"),
    "no such field": ("x.json", '{"a": [{}]}', {"field": "b"}, "x.json: has no key 'b', but a"),
    "name of a file": ("x.json", "[]", {"name": "main"}, "t.heldout.0.name: does nothing for a file, x.json"),
    "revision": ("x.json", "[]", {"revision": "v1"}, "t.heldout.0.revision: does nothing for a file"),
    "another split": ("x.jsonl", LINES, {"split": "test"}, "x.jsonl has no split 'test' (one of its splits (train)"),
    "no split": ("x.jsonl", LINES, {"split": "train[x]"}, "t.heldout.0.split: x.jsonl has no split 'train[x]'"),
    "a spreadsheet": ("x.XLSX", b"PK", {}, "x.XLSX is a spreadsheet (each sheet saved as a .csv file, in UTF-8)"),
    "a text": ("x.md", "a", {}, "x.md has the ending of no data file"),
    "a NUL": ("x.jsonl", '{"q": "a\\u0000", "a": ""}', {}, "x.jsonl row 1 holds a NUL character"),
    "a NUL in CSV": ("x.csv", "q,a\n1,2\n\0,3\n", {}, "x.csv row 2 holds a NUL character"),
    "half a character": ("x.jsonl", LINES + '{"q": {"\\udc00": 1}}', {}, "x.jsonl row 7 holds half a character"),
    "not xz": ("x.json.xz", b"hello", {}, "x.json.xz: "),
    "not zst": ("x.json.zst", b"hello", {}, "x.json.zst: "),
    "not zip": ("x.json.zip", b"hello", {}, "x.json.zip: "),
    "packed parquet": ("x.parquet.gz", b"hello", {}, "x.parquet.gz is packed twice"),
    "not arrow": ("x.arrow", b"hello, world", {}, "x.arrow: "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_right_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, source, message = REFUSED[case]
    found = bad(tmp_path, name, content, **source)
    assert message in found
    assert "\n" not in found


def test_an_archive_of_several_files_is_one_line(tmp_path: Path) -> None:
    zipped(tmp_path / "x.zip", ("a.csv", CSV), ("b.csv", CSV))
    with pytest.raises(ConfigError, match=r"x\.zip: holds 2 files: unpack it"):
        pairs(tmp_path, "x.zip")


def test_a_pattern_that_names_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.heldout\.0\.path: no file is named like .*/x-\*\.csv"):
        pairs(tmp_path, "x-*.csv")
