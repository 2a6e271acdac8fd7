"""The process in which templates are filled in that could take any time or memory.

Neither can be bounded from inside: ``10 ** 10 ** 9`` is one operation of Python, and ``'x' * 3000000000`` one
allocation. One process serves all templates; it ends with the one that started it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from sfa_hf.tasks import rendering
from sfa_hf.tasks.rendering import MOST_SECONDS, Kind, MissingColumnError, NullColumnError


class _RenderProcess:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def render(self, kind: Kind, source: str, row: Mapping[str, Any]) -> Any:
        """Fill in one row; raises as :func:`sfa_hf.tasks.rendering.compiled` says."""
        try:
            request = pickle.dumps((kind, source, dict(row)))
        except Exception as err:
            raise ValueError(f"cannot be given this row: {err}") from err
        with self._lock:
            word, value = self._ask(request)
        if word == "missing":
            raise MissingColumnError(value)
        if word == "null":
            raise NullColumnError(value)
        if word == "fails":
            raise ValueError(value)
        return tuple(value) if kind == "list" else value

    def _ask(self, request: bytes) -> tuple[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        except BaseException:  # an interrupt: the answer, if it comes, would be taken for the next one's
            process.kill()
            raise
        if line:
            return json.loads(line)
        code = process.wait()
        if code == -signal.SIGVTALRM:
            return "fails", f"takes more than {MOST_SECONDS:g} seconds of processor time"
        return "fails", f"cannot be filled in: its process ended with {code}"

    def _running(self) -> subprocess.Popen[bytes]:
        """The process; a new one where it has ended, or where this one was forked."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._owner = os.getpid()
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, on a file of this package
                [sys.executable, "-I", rendering.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # a thread for each core, as numerical libraries start them, reserves more than the limit
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # an interrupt at the terminal is the caller's to answer
            )
        return self._process


render_apart = _RenderProcess().render
