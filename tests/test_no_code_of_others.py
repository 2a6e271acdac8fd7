"""No call of the package loads a model, tokenizer or dataset in a way that may run code of a folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADERS = {"from_pretrained", "from_config", "load_dataset"}
UNPICKLE = {"torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load"}
FILES = sorted(file for part in ("sfa_hf", "scripts") for file in (ROOT / part).rglob("*.py"))


def calls(file: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_remote_code_is_refused_in_so_many_words_and_nothing_is_unpickled(file: Path) -> None:
    for call in calls(file):
        name = ast.unparse(call.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        where = f"{file.name}, line {call.lineno}: {name}"
        if name.rpartition(".")[2] in LOADERS and not any(
            part in ("PeftConfig", "PeftModel", "GenerationConfig") for part in name.split(".")
        ):
            assert given.get("trust_remote_code") == "False", where
        if name.endswith("ForCausalLM.from_pretrained"):
            assert given.get("use_safetensors") == "True", where
        if name in UNPICKLE and file.name != "limited.py":  # reads what the process that started it sends
            assert given.get("weights_only") == "True", where
        if name == "evaluate.load":  # takes no such argument: a module of this package alone
            assert ast.unparse(call.args[0]).startswith("str(_FOLDER /"), where
