"""Programs that aim at the judge's time, at its verdict, and at what outlives them."""

from __future__ import annotations

from hostile_programs import RIGHT, WRONG, Hostile

_SEND = (
    "import json, os, struct\n"
    "def send(body):\n"
    "    body = body if isinstance(body, bytes) else json.dumps(body).encode()\n"
    "    os.write(3, struct.pack('!I', len(body)) + body)\n"
)


def _returns(value: str, test: str, outcomes: str) -> Hostile:
    """An answer that is a heavy thing to work with."""
    return Hostile(f"def f(x):\n    return {value}\n", outcomes, test=test)


JUDGE: dict[str, Hostile] = {
    # ------------------------------------------------------------------------------- the judge's own work
    "a long sum for the judge": _returns("range(10**15)", "assert sum(f(1)) == 1", "timeout"),
    "a long power for the judge": _returns("10**8", "assert 10 ** f(1) == 1", "timeout out_of_memory"),
    "a long division for the judge": _returns(
        "10**7", "x = 3 ** f(1)\nassert x // 7 ** (f(1) // 2) == 1", "timeout out_of_memory"
    ),
    "a long factorial for the judge": _returns(
        "10**7", "import math\nassert math.factorial(f(1)) == 1", "timeout out_of_memory"
    ),
    "a long search for the judge": _returns("0.5", "assert f(1) in range(10**15)", "timeout"),
    "an exponent for the judge": Hostile(
        "import decimal\ndef f(x):\n    return decimal.Decimal('1e999999')\n",
        "timeout failed",
        test="assert str(int(f(1)) ** 9) == '1'",
    ),
    "a fraction for the judge": Hostile(
        _SEND + "send({'names': [['f', ['Fraction', '1e999999999']]]})\nimport time\ntime.sleep(99)\n",
        "timeout out_of_memory failed",
    ),
    "colliding numbers for the judge": _returns(
        "[each * (2**61 - 1) for each in range(60000)]", "assert len(set(f(1))) == 1", "timeout"
    ),
    "a pattern for the judge": _returns(
        "'a' * 40 + 'b'", "import re\nassert re.fullmatch('(a+)+', f(1))", "timeout"
    ),
    "a long text for the judge": _returns("10**12", "assert 'x' * f(1) == ''", "out_of_memory"),
    "a long list for the judge": _returns(
        "range(10**12)", "assert list(f(1)) == []", "out_of_memory timeout"
    ),
    "digits for the judge": _returns("1 << (10**7)", "assert str(f(1)) == '4'", "failed"),
    "a slow answer to each question": Hostile(
        "import time\ndef f(x):\n    time.sleep(0.3)\n    return 4\n",
        "timeout",
        test="for _ in range(99):\n    assert f(2) == 4",
    ),
    "an equality that loops": Hostile(
        "class Loop:\n    def __eq__(self, other):\n        while True:\n            pass\n"
        "def f(x):\n    return Loop()\n",
        "failed",
    ),
    "a length that loops": Hostile(
        "class Loop:\n    def __len__(self):\n        while True:\n            pass\n"
        "def f(x):\n    return Loop()\n",
        "timeout",
        test="assert len(f(2)) == 4",
    ),
    "an endless iterator": Hostile(
        "import itertools\ndef f(x):\n    return itertools.count()\n",
        "out_of_memory timeout",
        test="assert list(f(1)) == []",
    ),
    "an answer that holds itself": Hostile(
        "held = []\nheld.append(held)\ndef f(x):\n    return held\n", "failed", "RecursionError"
    ),
    "a deep answer": Hostile(
        "def f(x):\n    held = []\n    for _ in range(10**5):\n        held = [held]\n    return held\n",
        "failed",
        "RecursionError",
    ),
    "a deep message": Hostile(_SEND + "send(b'[' * 10**6)\n" + RIGHT, "failed"),
    "an empty message": Hostile(_SEND + "send(b'')\n" + RIGHT, "failed"),
    "half a message": Hostile(
        _SEND + "os.write(3, struct.pack('!I', 4096) + b'[')\n" + RIGHT, "timeout failed"
    ),
    "zeros on the channel": Hostile("import os\nos.write(3, bytes(10**5))\n" + RIGHT, "failed"),
    "a module that is a joke": Hostile(
        _SEND + "send({'names': [['f', ['module', 'antigravity']]]})\n" + RIGHT, "failed", "ValueError"
    ),
    "a long message of an exception": Hostile("raise ValueError('x' * 10**7)\n", "failed", "ValueError"),
    "an exception that loops": Hostile(
        "class Loop(Exception):\n    def __str__(self):\n        while True:\n            pass\n"
        "def f(x):\n    raise Loop\n",
        "timeout",
    ),
    # --------------------------------------------------------------------------------------- faked verdicts
    "leaves a test that catches all": Hostile(
        "import os\ndef f(x):\n    os._exit(0)\n", "exited", test="try:\n    f(1)\nexcept:\n    pass\n"
    ),
    "exits in a test that catches all": Hostile(
        "def f(x):\n    raise SystemExit(0)\n", "exited", test="try:\n    f(1)\nexcept:\n    pass\n"
    ),
    "interrupts a test that catches all": Hostile(
        "def f(x):\n    raise KeyboardInterrupt\n", "failed", test="try:\n    f(1)\nexcept:\n    pass\n"
    ),
    "a list equal to everything": Hostile(
        "class Yes(list):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Yes()\n",
        "failed",
    ),
    "a text equal to everything": Hostile(
        "class Yes(str):\n    def __eq__(self, other):\n        return True\n    __hash__ = str.__hash__\n"
        "def f(x):\n    return Yes('no')\n",
        "failed",
    ),
    "an object that says it is a number": Hostile(
        "class Yes:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n"
        "def f(x):\n    return Yes()\n",
        "failed",
    ),
    "changes what answers": Hostile(
        "import sfa_hf.evaluation.sandbox.inside.worker as worker\n"
        "worker.OPERATIONS['call'] = lambda target, *_: True\n" + WRONG,
        "failed",
        "AssertionError",
    ),
    "looks for the judge by frames": Hostile(
        "import sys\nframe, seen = sys._getframe(), []\n"
        "while frame:\n    seen += [*frame.f_globals.values(), *frame.f_locals.values()]\n"
        "    frame = frame.f_back\n"
        "mark = 'secret_' + 'of_the'\n"
        "found = any(mark in each for each in seen if isinstance(each, str))\nseen = []\n"
        "def f(x):\n    return x * x if found else 0\n",
        "failed",
        "AssertionError",
    ),
    "traces every call": Hostile(
        "import gc, sys, threading\nsys.settrace(lambda *_: None)\nthreading.settrace(lambda *_: None)\n"
        "gc.callbacks.append(lambda *_: sys.exit(0))\n" + WRONG,
        "failed exited",
    ),
    "two who answer": Hostile("import os\nos.fork()\n" + WRONG, "failed exited"),
    # ----------------------------------------------------------------------------------- size and descriptors
    "70 kB": Hostile("#" + "x" * 70_000 + "\n" + RIGHT, "passed"),
    "5 MB": Hostile(f"held = '{'x' * 5_000_000}'\n" + RIGHT, "passed"),
    "a test of 5 MB": Hostile(RIGHT, "passed", test=f"assert f(3) == 9\nheld = '{'x' * 5_000_000}'\n"),
    "5 MB, wrong": Hostile(f"held = '{'x' * 5_000_000}'\n" + WRONG, "failed", "AssertionError"),
    "floods standard error": Hostile(
        "import sys\nwhile True:\n    sys.stderr.write('x' * 9999)\n", "too_much_output"
    ),
    "a child that floods": Hostile(
        "import os, time\nif os.fork() == 0:\n    while True:\n        os.write(1, bytes(9999))\n"
        "time.sleep(99)\n",
        "too_much_output",
    ),
    "a sparse file": Hostile("open('/tmp/x', 'wb').truncate(1 << 40)\n", "too_much_output"),
    "closes its streams": Hostile(
        "import os, sys\nsys.stdout.close()\n"
        "for number in (0, 1, 2):\n    os.path.exists(number) and os.close(number)\n" + RIGHT,
        "passed",
    ),
    "shuts its channel": Hostile(
        "import socket\nsocket.socket(fileno=3).shutdown(socket.SHUT_RDWR)\n" + RIGHT, "exited"
    ),
    "looks for inherited descriptors": Hostile(
        "import os\nfound = [number for number in range(4, 64) if os.path.exists(number)]\n"
        "def f(x):\n    return found or x * x\n",
        "passed",
    ),
    "opens its streams anew": Hostile("open('/proc/self/fd/1', 'w').write('x')\n", "failed", "FileNotFound"),
    "opens its parent's streams": Hostile(
        "import os\nopen(f'/proc/{os.getppid()}/fd/1', 'w').write('started')\n", "failed", "FileNotFound"
    ),
    "opens the terminal": Hostile("open('/dev/tty', 'r+').write('x')\n", "failed", "FileNotFound"),
    "writes through a link to the system": Hostile(
        "import os\nos.symlink('/usr/bin', 'link')\nopen('link/evil', 'w').close()\n", "forbidden"
    ),
    "a hard link to the system": Hostile(
        "import os\nos.link('/usr/bin/env', '/tmp/env')\n", "failed forbidden"
    ),
    "leaves something in /dev/shm": Hostile("open('/dev/shm/left-here', 'w').write('x')\n" + RIGHT, "passed"),
    "removes its current folder": Hostile(
        "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n" + RIGHT, "passed"
    ),
    # --------------------------------------------------------------------------------- processes and signals
    "fork bomb of new sessions": Hostile(
        "import os\nwhile True:\n    os.fork()\n"
        "    try:\n        os.setsid()\n    except PermissionError:\n        pass\n",
        "too_many_processes",
    ),
    "fork bomb of orphans": Hostile(
        "import os, time\nwhile True:\n    if os.fork():\n        time.sleep(0.001)\n"
        "    elif os.fork():\n        os._exit(0)\n    else:\n        os.setsid()\n",
        "too_many_processes exited",
    ),
    "fork bomb of a shell": Hostile(
        "import os\nos.system('x() { x | x & }; x')\nimport time\ntime.sleep(99)\n",
        "too_many_processes too_much_output timeout",
    ),
    "processes without end": Hostile(
        "import subprocess\nwhile True:\n    subprocess.Popen(['/bin/sleep', '99'])\n", "too_many_processes"
    ),
    "spins in many processes": Hostile(
        "import os\nfor _ in range(3):\n    os.fork()\nwhile True:\n    pass\n", "timeout"
    ),
    "spins in short-lived children": Hostile(
        "import os\nwhile True:\n"
        "    if os.fork() == 0:\n        sum(range(10**6))\n        os._exit(0)\n    os.wait()\n",
        "timeout",
    ),
    "stops itself": Hostile("import os\nos.kill(os.getpid(), 19)\n", "timeout"),
    "stops its group": Hostile("import os\nos.killpg(0, 19)\n", "timeout"),
    "every signal to its parent": Hostile(
        "import os\nfor number in {*range(1, 65)} - {14}:\n    try:\n        os.kill(os.getppid(), number)\n"
        "    except OSError:\n        pass\n" + RIGHT,
        "passed",
    ),
    "a signal to its parent by descriptor": Hostile(
        "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)\n" + RIGHT, "passed"
    ),
    "slows its parent down": Hostile(
        "import os\ntry:\n    os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\n"
        "    os.sched_setaffinity(os.getppid(), {0})\nexcept OSError:\n    pass\n" + RIGHT,
        "passed",
    ),
    "zombies": Hostile(
        "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        os._exit(0)\n" + RIGHT, "passed"
    ),
    "children that outlive it": Hostile(
        "import os, time\n"
        "for _ in range(9):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(999)\n" + RIGHT,
        "passed",
    ),
    "children who do not go with their parent": Hostile(
        "import ctypes, os, signal, time\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "if os.fork() == 0:\n    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n    os.setsid()\n"
        "    signal.signal(15, signal.SIG_IGN)\n    os.fork()\n    time.sleep(999)\n" + RIGHT,
        "passed",
    ),
    "raises every limit": Hostile(
        "import resource\n"
        "for name in ('AS', 'CPU', 'NOFILE', 'FSIZE'):\n"
        "    try:\n"
        "        resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (-1, -1))\n"
        "    except ValueError:\n        continue\n"
        "    raise SystemExit('raised')\n" + RIGHT,
        "passed",
    ),
}
