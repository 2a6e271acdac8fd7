"""Programs in the answers of instruct models: Markdown fences, whole functions or bodies."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterator

_FENCE = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_LONGEST = 100_000
"""Characters of a program that is compiled here; longer ones are run as they are."""


def unfenced(answer: str, program: Callable[[str], str]) -> str:
    """The program that an answer makes; an answer without a fence is the completion itself.

    Of several fenced parts the first counts that defines something and, failing that, the first. It may be a
    whole function, behind which the prompt's own, unfinished one does not matter, or the body alone; what the
    prompt imports and defines stays in either case.

    Args:
        answer: what the model wrote.
        program: the program of a completion.
    """
    parts = [textwrap.dedent(found[2]) for found in _FENCE.finditer(answer)]
    if not parts:
        return program(answer)
    part = next(filter(_defines, parts), parts[0])
    programs = [program(completion) for completion in _completions(part)]
    return next(filter(_compiles, programs), programs[0])


def _completions(part: str) -> Iterator[str]:
    if _defines(part):
        yield f"\n{part}"  # behind a docstring, which is a body
        yield f"\n    pass\n{part}"  # behind a signature that has none
    else:
        yield textwrap.indent(part, "    ")
    yield part


def _defines(part: str) -> bool:
    try:
        found = ast.parse(part).body if len(part) <= _LONGEST else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for each in found)


def _compiles(program: str) -> bool:
    try:
        if len(program) <= _LONGEST:
            compile(program, "answer", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
