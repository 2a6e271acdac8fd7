"""What every command shares: one line for each error, exit codes, and a clean end of all processes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from sfa_hf.config.tracebacks import keep_traceback
from sfa_hf.errors import ConfigError, Diverged, Preempted
from sfa_hf.files.atomic import no_room

EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 65
"""EX_DATAERR of sysexits.h: weights in training became NaN or infinite; they were not saved."""
EXIT_UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h: an error that nobody foresaw; its traceback is in a file."""
EXIT_NO_ROOM = 74
"""EX_IOERR of sysexits.h: a disk is full; the same command continues once there is room."""
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: ended by SIGTERM; the same command continues."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""
_AFTER_DIVERGING = (
    "no such weights were saved. The same command goes on from the newest checkpoint; if it ends here again, "
    "a lower training.learning_rate needs another output_dir, or overwrite=true"
)
SHOW_TRACEBACK = "SFA_HF_TRACEBACK"
"""Environment variable: 1 prints the traceback of an unexpected error too."""


def run_main(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run ``main(arguments)`` with a clean end of its process group, guard it, and exit."""
    from sfa_hf.distributed import clean_end  # noqa: PLC0415 - imports torch, which not every command needs

    def call() -> None:
        _peers().join()
        with clean_end():
            main(sys.argv[1:])

    guard(call)


def guard(call: Callable[[], None]) -> NoReturn:
    """Call, and exit with 0 or with one line on standard error and its exit code.

    A :class:`ConfigError`, and an engine's NotImplementedError, become ``error: ...`` (once, from the first
    process) and exit code 2; a disk that is full, exit code 74; SIGTERM during a run, 75; Ctrl-C, 130.
    A process of a launch that lost another one ends with 69 and one line, within a stated time.
    Anything else becomes one line from the first process that fails, with the file that holds the traceback,
    and exit code 70.
    """
    logging.getLogger("DeepSpeed").addFilter(_is_news)
    logging.basicConfig(level=_log_level(), format="%(message)s", stream=sys.stderr, force=True)
    try:
        call()
    except (ConfigError, NotImplementedError) as error:
        _end(EXIT_BAD_INPUT, f"error: {error}")
    except Diverged as error:
        _end(EXIT_DIVERGED, f"error: {error}; {_AFTER_DIVERGING}")
    except Preempted as told:
        _end(EXIT_PREEMPTED, f"{told}; the same command continues")
    except KeyboardInterrupt:
        _end(EXIT_INTERRUPTED, "interrupted")
    except Exception as error:  # the last guard
        _end_unforeseen(error)
    _end(0, None)


def is_first_process() -> bool:
    """Whether this is rank 0, by the launcher's environment: right before any process group exists too."""
    return os.environ.get("RANK", "0") == "0"


def _end_unforeseen(error: Exception) -> NoReturn:
    if _launched() and (line := _peers().lost(error)):
        _end(_peers().EXIT_LOST_PROCESS, line)
    if cause := no_room(error):
        _end(EXIT_NO_ROOM, f"error: {cause}; the same command continues once there is room", first=False)
    if os.environ.get(SHOW_TRACEBACK) == "1":
        traceback.print_exc()
    _end(EXIT_UNEXPECTED, _unexpected(error), first=False)


def _end(code: int, line: str | None, *, first: bool = True) -> NoReturn:
    """Exit, and have the other processes of this launch exit, with one line from all of them.

    Args:
        code: to exit with, unless another process has ended the launch already.
        line: to print.
        first: where the processes cannot ask each other: whether it is rank 0's to print, else anyone's.
    """
    settled = _peers().leave(code, line) if _launched() else None
    if settled is None:
        if line is not None and (not first or is_first_process()):
            print(" ".join(line.split()), file=sys.stderr, flush=True)  # noqa: T201
    elif settled != code or settled == _peers().EXIT_LOST_PROCESS:
        # Some process is gone: an orderly end would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(settled)
    sys.exit(code)


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _peers() -> ModuleType:
    """Imported where it is needed: it imports torch."""
    return import_module("sfa_hf.distributed.peers")


def _unexpected(error: Exception) -> str | None:
    file = keep_traceback(error, _peers().launch() if _launched() else "")
    if file is None:
        return None
    message = " ".join(str(error).split())
    short = message if len(message) <= 300 else f"{message[:300]}..."
    return f"error: unexpected: {type(error).__name__}: {short} (traceback in {file}; please report it)"


def _is_news(record: logging.LogRecord) -> bool:
    """DeepSpeed says on import, on a machine with no GPU, that it found none: nothing a user asked for."""
    return "Setting accelerator to CPU" not in record.getMessage()


def _log_level() -> int:
    return logging.INFO if is_first_process() else logging.WARNING
