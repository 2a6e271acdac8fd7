"""Which box a run uses; none without its user's word."""

from __future__ import annotations

import logging
import os

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.sandbox.boxes import Bare, Box, Bubblewrap, Namespaces, available_box, problem_with

logger = logging.getLogger(__name__)


def box_for(*, allow_unsandboxed: bool) -> Box:
    """The best box of this machine; where it has none, no box at all if that is allowed.

    Raises:
        ConfigError: it has none, and running programs without one is not allowed.
    """
    box = available_box()
    if box is not None:
        return box
    problems = "; ".join(f"{each.name}: {problem_with(each)}" for each in (Bubblewrap(), Namespaces()))
    if not allow_unsandboxed:
        raise ConfigError(
            "evaluation.allow_unsandboxed_code",
            f"is false, and this machine cannot shut generated programs in: {problems}",
            "install bubblewrap or allow user namespaces; true runs the programs with your own rights",
        )
    bare = Bare()
    if (problem := problem_with(bare)) is not None:
        raise ConfigError(
            "evaluation.allow_unsandboxed_code",
            f"programs cannot run without a sandbox here either: {problem}",
            "a kernel with seccomp",
        )
    rights = "with nobody's rights" if os.geteuid() == 0 else "with your own rights"
    logger.warning("generated programs run %s, in no sandbox: %s", rights, problems)
    return bare
