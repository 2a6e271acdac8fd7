"""A program that answers requests within limits: ``python -I limited.py HANDLER.py SECONDS MIB``.

HANDLER.py has a function ``answer``. Each request is its pickled argument on standard input. Each
answer is one line of JSON: ["value", what it returned], or the name and the text of the error that it raised.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any


def _serve(answer: Callable[[Any], Any], seconds: float, mib: int) -> None:
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that started this one
        except EOFError:
            return
        # No handler: the signal ends the process, in the middle of whatever it does.
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        line = json.dumps(_answered(answer, request, mib))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _answered(answer: Callable[[Any], Any], request: Any, mib: int) -> tuple[str, Any]:
    try:
        return "value", answer(request)
    except Exception as err:  # whatever a stranger's text can make a library raise
        return type(err).__name__, _reason(err, mib)


def _reason(err: Exception, mib: int) -> str:
    if isinstance(err, MemoryError):
        return f"needs more than {mib} MiB"
    if isinstance(err, (RecursionError, SyntaxError)):
        return "is nested too deep"
    return str(err)


def _loaded(path: str) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location("handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    found: Callable[[Any], Any] = module.answer
    return found


if __name__ == "__main__":
    path, seconds, mib = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(mib) * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _serve(_loaded(path), float(seconds), int(mib))
