"""Answers of instruct models as programs: what is right in a fence passes as it would without one."""

from __future__ import annotations

from typing import Any

import pytest

from sfa_hf.evaluation.scoring.code import programs_of
from sfa_hf.tasks import Row, Scoring

PROMPT = "from typing import List\n\ndef helper(x): return x\n\n"
PROMPT += 'def add(xs: List[int]) -> int:\n    """The sum."""\n'
BARE = "import math\ndef add(xs):\n"
WHOLE = "def add(xs: List[int]) -> int:\n    total = helper(0)\n    for x in xs:\n        total += x\n"
WHOLE += "    return total\n"
BODY = "return sum(xs)\n"
ANSWERS = {
    "a body": "    return sum(xs)\n",
    "a whole function": f"```python\nfrom typing import List\n\n{WHOLE}```\nIt sums the list.",
    "no import": f"Sure! Here it is:\n\n```python\n{WHOLE}```",
    "a fenced body": f"```\n{BODY}```",
    "a fenced body as it is indented": "```py\n    return sum(xs)\n```",
    "cut off": f"```python\n{WHOLE}",
    "in a list": "1. Do:\n   ```python\n   def add(xs):\n       return sum(xs)\n   ```\n",
    "another fence first": f"```\npip install x\n```\nThen\n~~~python\n{WHOLE}~~~",
    "with an example": f"```python\n{WHOLE}\nassert add([1]) == 1\n```\n```\nprint(add([1]))\n```",
}


def program(prompt: str, answer: str, **changes: Any) -> str:
    code = {"test": "assert program.add([1, 2]) == 3"}
    scoring = Scoring.model_validate({"kind": "code", "metric": "pass@1", "code": code, **changes})
    (found,) = programs_of([Row(prompt, "", columns={"prompt": prompt})], [answer], scoring)
    return found.source


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_right_answer_is_a_right_program(answer: str) -> None:
    for prompt in (PROMPT, f"{BARE}"):
        if prompt == BARE and "helper" in ANSWERS[answer]:
            continue
        names: dict[str, Any] = {}
        exec(program(prompt, ANSWERS[answer]), names)
        assert names["add"]([1, 2, 3]) == 6
        assert ("math" in names) == (prompt == BARE)


def test_an_answer_without_a_fence_is_left_alone() -> None:
    for answer in ("    return 1\n", "    return (\n", "def add(xs):\n    return 3\n", ""):
        assert program(PROMPT, answer) == PROMPT + answer
    assert program(PROMPT, "```\n    return 1\n```", extract=r"(    return .)") == PROMPT + "    return 1"


def test_nonsense_in_a_fence_is_a_program_that_fails() -> None:
    with pytest.raises(SyntaxError):
        compile(program(PROMPT, "```\nreturn (\n```"), "x", "exec")
    compile(program(PROMPT, "```\n" + "(" * 50_000 + "\n```")[: len(PROMPT)], "x", "exec")
