"""A process for work that could take any time or memory because a stranger's text says so.

Neither can be bounded from inside: ``10 ** 10 ** 9`` is one operation of Python, and ``'x' * 3000000000`` one
allocation.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

from sfa_hf.config import limited


class ApartError(Exception):
    """The work failed, or took too much.

    Attributes:
        kind: class of the error that was raised there; "" where a limit ended the process.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Apart:
    """One process that answers requests; started with the first, and again after one that took too much.

    It ends with the process that started it.

    Args:
        handler: Python file with a function ``answer``. The time it takes to import does not count.
        seconds: processor time for one request.
        mib: address space of the process.
    """

    def __init__(self, handler: str, seconds: float, mib: int) -> None:
        self._command = [sys.executable, "-I", limited.__file__, handler, str(seconds), str(mib)]
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: Any) -> Any:
        """What ``answer`` returns, as JSON keeps it.

        Raises:
            ApartError: it raised an error, or took too much.
            ValueError: the request cannot be sent.
        """
        try:
            sent = pickle.dumps(request)
        except Exception as err:
            raise ValueError(f"cannot be sent to another process: {err}") from err
        with self._lock:
            word, value = self._asked(sent)
        if word != "value":
            raise ApartError(word, value)
        return value

    def _asked(self, request: bytes) -> tuple[str, Any]:
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
            word, value = json.loads(line)
            return word, value
        code = process.wait()
        if code == -signal.SIGVTALRM:
            return "", f"takes more than {self._seconds:g} seconds of processor time"
        return "", f"fails: its process ended with {code}"

    def _running(self) -> subprocess.Popen[bytes]:
        """The process; a new one where it has ended, or where this one was forked."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._owner = os.getpid()
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, on a file of this package
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # a thread for each core, as numerical libraries start them, reserves more than the limit
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # an interrupt at the terminal is the caller's to answer
            )
        return self._process
