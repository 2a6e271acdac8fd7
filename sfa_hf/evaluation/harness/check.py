"""Whether lm-eval is there and knows the tasks: asked before anything is trained."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from sfa_hf.errors import ConfigError, nearest
from sfa_hf.evaluation.options import LmEvalOptions

KEY = "evaluation.lm_eval"
_MOST_NAMES_SHOWN = 5


def check_lm_eval(options: LmEvalOptions) -> None:
    """Refuse what lm-eval would only refuse after the training.

    Raises:
        ConfigError: lm-eval is not installed, there is no such folder of tasks, or no such task.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            f"{KEY}.tasks", "need lm-eval, which is not installed", 'pip install "sfa_hf[lm-eval]"'
        )
    if options.include_path is not None and not Path(options.include_path).is_dir():
        raise ConfigError(
            f"{KEY}.include_path", f"there is no folder {options.include_path}", "a folder of task files"
        )
    known = _known(options.include_path, defaults=False)
    if not known >= set(options.tasks):
        known |= _known(None, defaults=True)  # reading all files of lm-eval takes seconds
    for task in options.tasks:
        if task not in known:
            raise ConfigError(f"{KEY}.tasks", f"lm-eval has no task '{task}'", _meant(task, known))


def _known(include_path: str | None, *, defaults: bool) -> set[str]:
    """Names of tasks, groups and tags: those in the folder, or lm-eval's own."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an optional dependency

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return set(TaskManager(include_path=include_path, include_defaults=defaults).all_tasks)


def _meant(task: str, known: set[str]) -> str:
    alike = [each for each in sorted(known) if task in each][:_MOST_NAMES_SHOWN]
    return f"known are e.g. {', '.join(alike)}" if alike else nearest(task, known, "lm-eval ls tasks")
