"""When two answers are the same mathematical expression, by the library math-verify."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

from sfa_hf.config.apart import Apart, ApartError
from sfa_hf.errors import ConfigError

_SECONDS = 5.0
"""Processor time to compare two answers; the first comparison takes one of them, to build the parser."""
_MIB = 1024
_LONGEST = 10_000
"""Characters of an answer."""
_program = Apart(str(Path(__file__).with_name("latex_program.py")), _SECONDS, _MIB)


def check_installed(key: str) -> None:
    """Raise ConfigError under ``key`` where math-verify is missing."""
    if find_spec("math_verify") is None:
        problem = "is latex, which needs math-verify, which is not installed"
        raise ConfigError(key, problem, 'pip install "sfa_hf[math]"')


@functools.lru_cache(maxsize=10_000)
def same(right: str, given: str, *, bare: bool) -> bool:
    r"""Whether an answer is the right expression; one that cannot be read in time is not.

    Args:
        right: an expression, or text that holds it in \boxed{} or between dollars.
        given: the model's.
        bare: it is an expression too, and no prose around one.
    """
    if max(len(right), len(given)) > _LONGEST:
        return False
    try:
        return bool(_program.ask((right, given, bare)))
    except ApartError:
        return False
