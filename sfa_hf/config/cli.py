"""What every script shares: one error line, exit code 2, and a clean end of all processes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sfa_hf.distributed import clean_end
from sfa_hf.errors import ConfigError, Preempted
from sfa_hf.files.atomic import no_room

EXIT_BAD_INPUT = 2
EXIT_NO_ROOM = 74
"""EX_IOERR of sysexits.h: a disk is full; the same command continues once there is room."""
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: ended by SIGTERM; the same command continues."""


def run_main(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run a script's ``main(arguments)`` and exit.

    A :class:`ConfigError`, and an engine's NotImplementedError, become ``error: ...`` on one line of standard
    error (once, from the first process) and exit code 2; a disk that is full, one line and exit code 74;
    SIGTERM during a run, one line and exit code 75. Any other exception keeps its traceback.
    """
    logging.getLogger("DeepSpeed").addFilter(_is_news)
    logging.basicConfig(level=_log_level(), format="%(message)s", stream=sys.stderr, force=True)
    try:
        with clean_end():
            main(sys.argv[1:])
    except (ConfigError, NotImplementedError) as error:
        if is_first_process():
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(EXIT_BAD_INPUT)
    except Preempted as told:
        if is_first_process():
            print(f"{told}; the same command continues", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(EXIT_PREEMPTED)
    except Exception as error:
        if not (cause := no_room(error)):
            raise
        print(f"error: {cause}; the same command continues once there is room", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(EXIT_NO_ROOM)
    sys.exit(0)


def is_first_process() -> bool:
    """Whether this is rank 0, by the launcher's environment: right before any process group exists too."""
    return os.environ.get("RANK", "0") == "0"


def _is_news(record: logging.LogRecord) -> bool:
    """DeepSpeed says on import, on a machine with no GPU, that it found none: nothing a user asked for."""
    return "Setting accelerator to CPU" not in record.getMessage()


def _log_level() -> int:
    return logging.INFO if is_first_process() else logging.WARNING
