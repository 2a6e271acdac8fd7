"""Inputs that a hostile or an unlucky world makes: one line on standard error, exit code 2, nothing written.

``pytest tests/config/test_hostile_input.py -s`` prints them with their answers.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_bad_input import CASES as PLAIN
from test_bad_input import ROWS, _config, _rows, _task, place
from test_bad_input import test_one_line_exit_code_2_and_nothing_written as answered_in_one_line

__all__ = ["place"]
Prepare = Callable[[], Any]


def prompt(text: str) -> Prepare:
    return lambda: _config(sequence=[_task(prompt=text)])


def source(**change: Any) -> Prepare:
    rows = [{"path": "rows.jsonl", **change}]
    return lambda: _config(sequence=[{**_task(), "train": rows, "heldout": rows}])


def scoring(**change: Any) -> Prepare:
    return lambda: _config(sequence=[_task(scoring={"kind": "generate", **change})])


def data(content: bytes, name: str = "rows.jsonl") -> Prepare:
    def write() -> None:
        Path(name).write_bytes(content)
        _config(sequence=[_task(name)])

    return write


def instead(make: Callable[[Path], Any], name: str = "rows.jsonl") -> Prepare:
    def replace() -> None:
        Path(name).unlink()
        make(Path(name))

    return replace


def model(**files: str | bytes) -> Prepare:
    """Files of the model folder: ``config``, ``index``, ``weights``, ``pickled``, ``tokenizer_config``."""
    names = {
        "config": "config.json",
        "index": "model.safetensors.index.json",
        "weights": "model.safetensors",
        "pickled": "pytorch_model.bin",
        "tokenizer_config": "tokenizer_config.json",
    }

    def write() -> None:
        for name, content in files.items():
            raw = content if isinstance(content, bytes) else content.encode()
            Path("no-weights", names[name]).write_bytes(raw)

    return write


def index(name: Any) -> Prepare:
    return model(index=json.dumps({"metadata": {}, "weight_map": {"x": name}}))


def linked_out() -> None:
    Path("outside.safetensors").write_bytes(b"x")
    Path("no-weights/a.safetensors").symlink_to(Path("outside.safetensors").resolve())
    index("a.safetensors")()


OWN_CODE = json.dumps({"model_type": "theirs", "auto_map": {"AutoModelForCausalLM": "theirs.Model"}})
OWN_WORDS = json.dumps({"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Words", None]}})
DEEP = "[" * 100_000

TEMPLATES: dict[str, tuple[str, str]] = {
    "a long text": ("{{ 'x' * 3000000000 }}", "needs more than 400 MiB"),
    "a long text by a column": ("{{ q * 1000000000 }}", "needs more than 400 MiB"),
    "three loops": ("{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3, "takes more than 2 seconds"),
    "a tower of powers": ("{{ 10 ** (10 ** 9) }}", "takes more than 2 seconds"),
    "a digit too many": ("{{ 10 ** 5000 }}", "Exceeds the limit"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself too deep"),
    "a long range": ("{{ range(10 ** 9) | list }}", "Range too big"),
    "a wide filter": ("{{ q | center(3000000000) }}", "needs more than 400 MiB"),
    "a wide method": ("{{ q.ljust(3000000000) }}", "needs more than 400 MiB"),
    "a wide format": ("{{ '%3000000000d' % 1 }}", "fails with|needs more than"),
    "parentheses": ("{{ " + "(" * 9_000 + "1" + ")" * 9_000 + " }}", "nested too deep"),
    "blocks": ("{% if q %}" * 4_000 + "{% endif %}" * 4_000, "nested too deep"),
    "additions": ("{{ q" + " + q" * 9_000 + " }}", "nested too deep"),
    "a template of 200,000 characters": ("x" * 200_000, "more than 100000"),
    "attributes of classes": ("{{ q.__class__.__mro__ }}", "fails with SecurityError"),
    "all subclasses": ("{{ ''.__class__.__base__.__subclasses__() }}", "fails with SecurityError"),
    "a format that reads attributes": ("{{ '{0.__class__}'.format(q) }}", "fails with SecurityError"),
    "globals of a macro": ("{{ cycler.__init__.__globals__ }}", "fails with SecurityError"),
    "a list that is changed": ("{% set l = [] %}{{ l.append(1) }}", "fails with SecurityError"),
    "an import": ("{% import 'os' as os %}{{ os }}", "no loader for this environment"),
    "an include": ("{% include '/etc/passwd' %}", "no loader for this environment"),
    "no end": ("{{ q", "must be a Jinja template"),
    "an unknown filter": ("{{ q | eval }}", "must be a Jinja template"),
    "an unknown tag": ("{% exec %}", "must be a Jinja template"),
    "a division by zero": ("{{ 1 / 0 }}", "fails with ZeroDivisionError"),
    "a text that is called": ("{{ q() }}", "fails with TypeError"),
}
DATA: dict[str, tuple[Prepare, str]] = {
    "a pipe": (instead(os.mkfifo), "there is no file rows.jsonl"),
    "a full device": (instead(lambda path: path.symlink_to("/dev/full")), "there is no file rows.jsonl"),
    "an endless device": (instead(lambda path: path.symlink_to("/dev/zero")), "there is no file rows.jsonl"),
    "a link in a loop": (instead(lambda path: path.symlink_to(path.name)), "there is no file rows.jsonl"),
    "a folder named as a file": (instead(lambda path: path.mkdir()), "there is no file in rows.jsonl"),
    "lines nested too deep": (data(DEEP.encode()), "rows.jsonl: is nested too deep"),
    "objects nested too deep": (data(b'{"q":' * 50_000), "line 1 is nested too deep"),
    "a list nested too deep": (data(DEEP.encode(), "x.json"), "x.json: is nested too deep"),
    "half a character": (data(b'{"q": "\\ud800", "a": "1"}'), "rows.jsonl row 1 holds half a character"),
    "half a character as a name": (data(b'{"\\udfff": 1}'), "rows.jsonl row 1 holds half a character"),
    "half a character inside": (data(b'{"q": [["\\uDC00"]]}'), "rows.jsonl row 1 holds half a character"),
    "endless digits": (data(b'{"q": ' + b"9" * 5000 + b"}"), "line 1: Exceeds the limit"),
    "bytes that are no text": (data(b"\xff\xfe\x00"), "is not UTF-8 text"),
    "NUL alone": (data(b"\0\0\0"), "line 1 is not JSON"),
    "a list": (data(b"[]"), "rows.jsonl yields no rows"),
    "a number": (data(b"3", "x.json"), "holds one int, not a list"),
    "JSON that is cut": (data(b'[{"q": 1}', "x.json"), "x.json: is not JSON"),
    "no gzip": (data(b"x", "x.jsonl.gz"), "x.jsonl.gz: "),
    "a gzip that is cut": (data(gzip.compress(b"{}" * 999)[:-9], "x.jsonl.gz"), "x.jsonl.gz: "),
    "a gzip with other bits": (
        data(gzip.compress(b"{}" * 9)[:12] + b"\xff" * 99, "x.jsonl.gz"),
        "x.jsonl.gz",
    ),
    "a gzip without end": (data(gzip.compress(b"\n" * (2**23)), "x.jsonl.gz"), "unpacks to more than"),
    "no parquet": (data(b"PAR1xxxxPAR1", "x.parquet"), "x.parquet: "),
    "a cell without end": (data(b'q,a\n"' + b"x" * 200_000, "x.csv"), "x.csv: "),
    "more cells than names": (data(b"q,a\n1,2,3\n", "x.csv"), "more cells than the header"),
    "a NUL in a path": (source(path="a\0.jsonl"), "holds a NUL character"),
    "a path without end": (source(path="x" * 5000 + ".jsonl"), "is too long for a path"),
    "a user that is not": (source(path="~nosuchuser/x.jsonl"), "there is no user nosuchuser"),
    "a variable that is not": (source(path="$NO_SUCH_PLACE/x.jsonl"), "no environment variable"),
    "a limit of 0": (source(limit=0), "limit: is 0"),
    "a condition without end": (source(only_if="10 ** (10 ** 9) > 1"), "takes more than 2 seconds"),
    "a condition on no column": (source(only_if="z > 1"), "no value in column 'z'"),
    "a condition that is none": (source(only_if="q >"), "must be one Jinja expression"),
    "a choice of no column": (source(where={"z": 1}), "row 1 has no such column"),
    "choices that are no list": (source(choices="{{ q }}"), "not a list"),
    "one row with null": (lambda: _rows("rows.jsonl", [*ROWS, {"q": None, "a": "1"}]), "null in column 'q'"),
    "one row without a column": (lambda: _rows("rows.jsonl", [*ROWS, {"q": "1"}]), "has no column 'a'"),
}
PATTERNS: dict[str, tuple[Prepare, str]] = {
    "a bracket": (scoring(extract="("), "must be a regular expression"),
    "a repeat of nothing": (scoring(ignore="*"), "must be a regular expression"),
    "a repeat turned round": (scoring(extract="a{3,2}"), "must be a regular expression"),
    "groups of one name": (scoring(extract="(?P<a>x)(?P<a>y)"), "must be a regular expression"),
    "a named pattern": (scoring(extract="x", also_extract={"y": "["}), "must be a regular expression"),
    "groups in groups": (scoring(extract="(" * 5000 + ")" * 5000), "must be a regular expression"),
}
MODELS: dict[str, tuple[Prepare, str]] = {
    "code of its own": (model(config=OWN_CODE, weights=b""), "needs code of its own"),
    "words of its own": (model(weights=b"", tokenizer_config=OWN_WORDS), "needs code of its own"),
    "a pickle": (model(pickled=b"x"), "a pickled .bin file is not read"),
    "a config nested too deep": (model(config=DEEP), "nested too deep"),
    "a config that is a list": (model(config="[]"), "holds no keys"),
    "a config that is cut": (model(config="{"), "is not valid JSON"),
    "a config that is no text": (model(config=b"\xff"), "is not valid JSON"),
    "a config with weights elsewhere": (
        model(config='{"transformers_weights": "../x"}'),
        "names its own transformers_weights",
    ),
    "an index nested too deep": (model(index=DEEP), "nested too deep"),
    "an index without names": (model(index="{}"), "has no weight_map"),
    "an index of numbers": (index(3), "has no weight_map"),
    "an index of a file above": (index("../x.safetensors"), "names '../x.safetensors'"),
    "an index of a file far below and above": (index("a/../../x.safetensors"), "names 'a/"),
    "an index of any file": (index("/etc/passwd"), "names '/etc/passwd'"),
    "an index of a pickle": (index("pytorch_model.bin"), "names 'pytorch_model.bin'"),
    "an index with NUL": (index("a\0.safetensors"), "names 'a"),
    "an index of a file that is not": (index("a.safetensors"), "has no a.safetensors"),
    "an index of a link out": (linked_out, "is a link out of its folder"),
    "tokenizer settings nested too deep": (model(weights=b"", tokenizer_config=DEEP), "nested too deep"),
}
HOSTILE: dict[str, tuple[Prepare, str]] = {
    **{f"template: {name}": (prompt(text), answer) for name, (text, answer) in TEMPLATES.items()},
    **{f"data: {name}": case for name, case in DATA.items()},
    **{f"pattern: {name}": case for name, case in PATTERNS.items()},
    **{f"model: {name}": case for name, case in MODELS.items()},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_answered_in_one_line(
    case: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    prepare, answer = HOSTILE[case]
    monkeypatch.setitem(PLAIN, case, ([], prepare, answer))
    answered_in_one_line(case, place, monkeypatch, capsys, request)
