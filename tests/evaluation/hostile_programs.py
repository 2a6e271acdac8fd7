"""Programs that mean harm, or at least do it, and what a sandbox should make of each.

Each should define ``f`` with ``f(x) == x * x``, of which the test tries 2, 3 and 5. PASSED here
means that the attack came to nothing and the answers were right all the same; no wrong answer may ever pass.
"""

from __future__ import annotations

from dataclasses import dataclass

TEST = """
import colorsys

def helper(x):
    return x * x

assert program.f(2) == helper(2)
assert program.f(5) == 25
assert all([program.f(3) == 9])
secret_of_the_test = 'b3a9-only-the-test-knows'
"""
RIGHT = "def f(x):\n    return x * x\n"
WRONG = "def f(x):\n    return 0\n"
# a ctypes call's result: right answers if the kernel refused it
REFUSED = "def f(x):\n    return x * x if refused else 'not refused'\n"
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@dataclass(frozen=True)
class Hostile:
    """A program and the outcomes that are right for it; OUTSIDE stands for a folder outside the sandbox."""

    source: str
    outcomes: str
    detail: str = ""
    test: str = TEST


HOSTILE: dict[str, Hostile] = {
    # ------------------------------------------------------------------------------- using up the machine
    "fork bomb": Hostile("import os\nwhile True:\n    os.fork()\n", "too_many_processes"),
    "thread bomb": Hostile(
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(99,)).start()\n",
        "too_many_processes out_of_memory",
    ),
    "memory bomb": Hostile("x = [bytearray(1 << 20) for _ in range(10**6)]\n", "out_of_memory"),
    "one huge allocation": Hostile("x = bytearray(1 << 40)\n", "out_of_memory"),
    "memory bomb in many processes": Hostile(
        "import os, time\n"
        "for _ in range(12):\n"
        "    if os.fork() == 0:\n        x = b'x' * (60 << 20)\n        time.sleep(99)\n"
        "time.sleep(99)\n",
        "out_of_memory",
    ),
    "infinite loop": Hostile("while True:\n    pass\n", "timeout"),
    "infinite loop in the function": Hostile("def f(x):\n    while True:\n        pass\n", "timeout"),
    "loop that ignores signals": Hostile(
        "import signal\n"
        "for number in set(signal.Signals) - {9, 19}:\n    signal.signal(number, signal.SIG_IGN)\n"
        "while True:\n    pass\n",
        "timeout",
    ),
    "sleep": Hostile("import time\ndef f(x):\n    time.sleep(10**6)\n", "timeout", "more than 2 s"),
    "deep recursion": Hostile("def f(x):\n    return f(x)\n", "failed", "RecursionError"),
    "bottomless recursion": Hostile(
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x + 1)\n",
        "out_of_memory crashed timeout",
    ),
    "huge output": Hostile("while True:\n    print('x' * 9999)\n", "too_much_output"),
    "huge answer": Hostile("def f(x):\n    return 'x' * (64 << 20)\n", "too_much_output"),
    "endless answer": Hostile(
        "import itertools\ndef f(x):\n    return list(itertools.count())\n", "out_of_memory timeout"
    ),
    "number of a million digits": Hostile("def f(x):\n    return 10 ** 10**6\n", "failed", "AssertionError"),
    "huge file": Hostile(
        "with open('/tmp/x', 'wb') as file:\n    while True:\n        file.write(b'x' * (1 << 20))\n",
        "too_much_output",
    ),
    "full disk": Hostile(
        "for i in range(99):\n    open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))\n", "too_much_output"
    ),
    "many files": Hostile(
        "for i in range(10**6):\n    open(f'/tmp/{i}', 'w').close()\n", "too_much_output timeout"
    ),
    "open files": Hostile("x = [open('/dev/null') for _ in range(10**4)]\n", "failed", "Too many open files"),
    "raises its limits": Hostile(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n", "failed", "ValueError"
    ),
    # --------------------------------------------------------------------------------- reaching outside
    "connects to an address": Hostile(
        "import socket\nsocket.create_connection(('1.1.1.1', 80), 5)\n", "forbidden"
    ),
    "connects to this machine": Hostile(
        "import socket\nsocket.create_connection(('127.0.0.1', PORT), 5)\n", "forbidden failed", "[Errno"
    ),
    "asks for a name": Hostile("import socket\nsocket.getaddrinfo('example.org', 80)\n", "forbidden"),
    "fetches a page": Hostile(
        "import urllib.request\nurllib.request.urlopen('http://example.org')\n",
        "forbidden failed",
        "URLError",
    ),
    "reads the home folder": Hostile("open('OUTSIDE/secret').read()\n", "failed", "FileNotFoundError"),
    "reads /etc/passwd": Hostile("open('/etc/passwd').read()\n", "failed", "FileNotFoundError"),
    "reads the environment": Hostile(
        "import os\nfound = any('hush' in value for value in os.environ.values())\n"
        "def f(x):\n    return 'seen' if found else x * x\n",
        "passed",
    ),
    "reads /proc": Hostile("open('/proc/1/environ').read()\n", "failed", "FileNotFoundError"),
    "follows a symbolic link": Hostile(
        "import os\nos.symlink('OUTSIDE/secret', '/tmp/link')\nopen('/tmp/link').read()\n",
        "failed",
        "FileNotFoundError",
    ),
    "climbs out by ..": Hostile(
        "import os\nos.chdir('/tmp/../../../../..')\nopen('OUTSIDE/secret'[1:]).read()\n",
        "failed",
        "FileNotFoundError",
    ),
    "writes outside": Hostile("open('OUTSIDE/written', 'w').write('x')\n", "failed", "FileNotFoundError"),
    "writes to the system": Hostile(
        "open('/usr/bin/python3', 'ab').write(b'x')\n", "forbidden failed", "[Errno"
    ),
    "makes a folder at the top": Hostile("import os\nos.mkdir('/new')\n", "forbidden"),
    "writes to the sandbox's code": Hostile(
        "import os, sfa_hf.evaluation.sandbox.inside.judge as judge\nos.remove(judge.__file__)\n",
        "forbidden",
        "Read-only",
    ),
    "becomes root": Hostile("import os\nos.setuid(0)\n", "forbidden failed", "[Errno"),
    "works from a user namespace of its own": Hostile(  # which it may not even get
        LIBC + "libc.unshare(0x10020000)\n"
        "read_write = libc.mount(None, b'/usr', None, 32 | 4096, None)\n"
        "traced = libc.ptrace(16, os.getppid(), 0, 0)\n"
        "refused = read_write == traced == -1\n" + REFUSED,
        "passed",
    ),
    "mounts": Hostile(
        LIBC + "refused = libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1\n" + REFUSED, "passed"
    ),
    "unmounts": Hostile(LIBC + "refused = libc.umount2(b'/tmp', 2) == -1\n" + REFUSED, "passed"),
    # ------------------------------------------------------------------------------ harming its runner
    "kills its parent": Hostile("import os\nos.kill(os.getppid(), 9)\n" + RIGHT, "passed"),
    "stops its parent": Hostile("import os\nos.kill(os.getppid(), 19)\n" + RIGHT, "passed"),
    "kills everyone": Hostile("import os\nos.kill(-1, 9)\n" + RIGHT, "failed", "No such process"),
    "kills itself": Hostile(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "crashed", "SIGKILL"
    ),
    "kills its group": Hostile("import os\nos.killpg(0, 15)\n", "crashed", "SIGTERM"),
    "ptraces its parent": Hostile(
        LIBC + "refused = libc.ptrace(16, os.getppid(), 0, 0) == -1\n" + REFUSED, "passed"
    ),
    "writes to its parent's memory": Hostile(
        LIBC + "class Part(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        "text = ctypes.create_string_buffer(8)\npart = Part(ctypes.addressof(text), 8)\n"
        "where = ctypes.byref(part)\n"
        "refused = libc.process_vm_writev(os.getppid(), where, 1, where, 1, 0) == -1\n"
        "refused = refused and ctypes.get_errno() == 1\n" + REFUSED,
        "passed",
    ),
    "lowers its parent's limits": Hostile(
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))\n" + WRONG,
        "failed forbidden crashed out_of_memory",
    ),
    "alarms its parent": Hostile("import os\nos.kill(os.getppid(), 14)\n" + RIGHT, "timeout"),
    "thread that outlives it": Hostile(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n" + RIGHT, "passed"
    ),
    "daemon": Hostile(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n    if os.fork() == 0:\n        time.sleep(99)\n    os._exit(0)\n" + RIGHT,
        "passed",
    ),
    "daemon in its place": Hostile(
        "import os, time\nif os.fork():\n    os._exit(0)\nos.setsid()\ntime.sleep(99)\n", "exited"
    ),
    "closes every file": Hostile("import os\nos.closerange(0, 99)\n" + RIGHT, "exited"),
    "reads input": Hostile("x = input()\n", "failed", "EOFError"),
    "dereferences null": Hostile("import ctypes\nctypes.string_at(0)\n", "crashed", "SIGSEGV"),
    "aborts": Hostile("import os\nos.abort()\n", "crashed", "SIGABRT"),
    # --------------------------------------------------------------------------------- faking a pass
    "os._exit(0)": Hostile("import os\nos._exit(0)\n", "exited", "exit status 0"),
    "os._exit(0) in the function": Hostile("import os\ndef f(x):\n    os._exit(0)\n", "exited"),
    "sys.exit(0)": Hostile("import sys\nsys.exit(0)\n", "exited", "SystemExit"),
    "SystemExit in the middle": Hostile(
        "def f(x):\n    if x == 5:\n        raise SystemExit(0)\n    return 4\n", "exited"
    ),
    "becomes another program": Hostile(
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo passed'])\n", "exited"
    ),
    "exits at exit": Hostile(
        "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG, "failed", "AssertionError"
    ),
    "prints a verdict": Hostile('print(\'{"outcome": "passed", "detail": ""}\')\n' + WRONG, "failed"),
    "writes a verdict to every file": Hostile(
        "import os\nfor number in range(99):\n    try:\n"
        '        os.write(number, b\'started\\n{"outcome": "passed", "detail": ""}\')\n'
        "    except OSError:\n        pass\n" + WRONG,
        "failed too_much_output",
    ),
    "answers on the channel itself": Hostile(
        "import json, os, struct\n"
        "body = json.dumps({'outcome': 'passed', 'names': [], 'value': None, 'arguments': [None]}).encode()\n"
        "os.write(3, (struct.pack('!I', len(body)) + body) * 9)\n" + WRONG,
        "failed",
    ),
    "shadows what the test asks": Hostile(
        "def all(x):\n    return True\ndef f(x):\n    return x * x if x != 3 else 0\n",
        "failed",
        "AssertionError",
    ),
    "sends builtins of its own": Hostile(
        "import json, sys\n"
        "def f(x):\n    return x * x if x != 3 else 0\n"
        "refer = sys._getframe(1).f_locals['self']._refer\n"  # the worker's own, to make handles
        "fakes = ['dict', *([name, refer(lambda *_: True)] for name in ('all', '__import__'))]\n"
        "real = json.dumps\n"
        "def once(message):\n"
        "    json.dumps = real\n"
        "    return real({'names': [['f', refer(f)], ['__builtins__', fakes]]})\n"
        "json.dumps = once\n",
        "failed",
        "AssertionError",
    ),
    "an answer equal to everything": Hostile(
        "class Yes:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Yes()\n",
        "failed",
    ),
    "a number equal to everything": Hostile(
        "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Yes(0)\n",
        "failed",
    ),
    "a dict equal to everything": Hostile(
        "class Yes(dict):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Yes()\n",
        "failed",
    ),
    "patched builtins": Hostile(
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\n"
        "builtins.exec = builtins.compile = lambda *a, **k: None\n" + WRONG,
        "failed",
        "AssertionError",
    ),
    "redefines the test's helper": Hostile(
        "def helper(x):\n    return 0\n" + WRONG, "failed", "AssertionError"
    ),
    "puts itself in the test's place": Hostile(
        "import sys, types\nsys.modules['program'] = sys.modules['test'] = types.ModuleType('x')\n"
        "program = None\n" + WRONG,
        "failed",
        "AssertionError",
    ),
    "plants a module for the test": Hostile(
        "open('/tmp/colorsys.py', 'w').write('raise SystemExit')\n" + RIGHT, "passed"
    ),
    "looks for the test in memory": Hostile(
        "import gc, sys\n"
        "def f(x):\n"
        "    mark = 'only-the-' + 'test-knows'\n"
        "    dicts = [each for each in gc.get_objects() if type(each) is dict]\n"
        "    texts = [value for each in dicts for value in each.values()]\n"
        "    return x * x if any(type(text) is str and mark in text for text in texts) else 0\n",
        "failed",
        "AssertionError",
    ),
    "an exception that is no Exception": Hostile(
        "class Passed(BaseException):\n    def __str__(self):\n        raise Passed\n"
        "def f(x):\n    raise Passed\n",
        "failed",
        "Passed: ",
    ),
    "asserts nothing from now on": Hostile(
        "import sys\nsys.settrace(lambda *_: None)\nsys.excepthook = lambda *_: None\n" + WRONG, "failed"
    ),
}
