"""SIGTERM where Python lets no exception out."""

from __future__ import annotations

import os
import signal
import weakref

import pytest

from sfa_hf.errors import Preempted
from sfa_hf.hf_trainer.preemption import Preemption


class _Dying:
    pass


def _signalled_where_it_is_swallowed(passed: list[str]) -> None:
    with Preemption().heard():
        dying = _Dying()
        watch = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del dying
        assert watch() is None
        passed.append("the work went on")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_inside_a_weak_references_callback_is_not_lost() -> None:
    passed: list[str] = []
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        _signalled_where_it_is_swallowed(passed)
    assert passed
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
