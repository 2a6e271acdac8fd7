"""What becomes of programs in each sandbox that this machine has.

``pytest tests/evaluation/test_sandbox.py -s`` prints the table of docs/sandbox.md.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_judge import JUDGE
from hostile_programs import HOSTILE, RIGHT, TEST, WRONG, Hostile
from hostile_system_calls import SYSTEM_CALLS
from own_namespace import in_own_namespace

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.sandbox import (
    Bare,
    Box,
    Bubblewrap,
    Limits,
    Namespaces,
    Outcome,
    Program,
    SandboxError,
    Verdict,
    box_for,
    boxes,
    problem_with,
    run_program,
    run_programs,
    view,
)

EVERY = HOSTILE | SYSTEM_CALLS | JUDGE
# one or two of each kind in every run of the tests; all of them with the slow ones
QUICK = {
    "fork bomb",
    "memory bomb",
    "infinite loop in the function",
    "huge output",
    "huge answer",
    "full disk",
    "raises its limits",
    "connects to this machine",
    "reads the home folder",
    "reads the environment",
    "writes to the system",
    "becomes root",
    "works from a user namespace of its own",
    "kills its parent",
    "kills everyone",
    "daemon",
    "os._exit(0) in the function",
    "writes a verdict to every file",
    "sends builtins of its own",
    "a number equal to everything",
    "patched builtins",
    "looks for the test in memory",
    "every system call that is shut",
    "every system call of later kernels",
    "reads a key",
    "memory by System V",
    "memory by memfd",
    "shared memory, a page kept of each",
    "socket to the host (AF_VSOCK)",
    "io_uring",
    "system calls of x32",
    "a long sum for the judge",
    "an equality that loops",
    "an answer that holds itself",
    "leaves a test that catches all",
    "70 kB",
    "5 MB",
    "looks for inherited descriptors",
    "every signal to its parent",
    "children that outlive it",
}
LIMITS = Limits(cpu_seconds=1, memory_mb=256, disk_mb=8)
# the same for a machine that is busy with other things
PATIENT = Limits(cpu_seconds=5, memory_mb=256, disk_mb=8)
# from the start of the sandbox to its end, beside the clock that the program has
SPARE_SECONDS = 10
WORKERS = 4
SYSTEM_PYTHON = "/usr/bin/python3"
BOXES: dict[str, Box] = {"bubblewrap": Bubblewrap(), "namespaces": Namespaces()}


@pytest.fixture(scope="module", params=BOXES)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    found = BOXES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        if problem_with(found) is not None and Path(SYSTEM_PYTHON).exists():
            # bubblewrap runs as nobody, who cannot read an interpreter that root keeps in /root
            _use_system_python(patch)
        problem = problem_with(found)
        if problem is not None:
            pytest.skip(f"no {found.name} on this machine: {problem}")
        yield found
    _forget()


def _use_system_python(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "executable", SYSTEM_PYTHON)
    for prefix in ("base_prefix", "base_exec_prefix"):
        patch.setattr(sys, prefix, "/usr")
    _forget()


def _forget() -> None:
    """What is known of this machine's sandboxes."""
    for cache in (boxes.available_box, boxes.problem_with, view.system_view):
        cache.cache_clear()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside every sandbox, with something in it that a program might want."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("hush")
    return folder


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server on this machine that would take any connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _named() -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in EVERY]


def _chosen(request: pytest.FixtureRequest) -> list[str]:
    """Hostile programs that this run of pytest has not deselected."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = {call.params.get("name") for call in calls if call is not None}
    return [name for name in EVERY if name in names]


def _run(names: list[str], box: Box, outside: Path, port: int) -> dict[str, Verdict]:
    """Run a few at a time beside each other; what a busy machine left no time for, once more and alone."""
    found = {}
    programs = {name: _program(EVERY[name], outside, port) for name in names}
    verdicts = run_programs(list(programs.values()), box, LIMITS, WORKERS)
    for (name, program), verdict in zip(programs.items(), verdicts, strict=True):
        late = verdict.outcome is Outcome.TIMEOUT and "timeout" not in EVERY[name].outcomes
        found[name] = run_program(program, box, PATIENT) if late else verdict
    FOUND[box.name] = found
    return found


def _program(hostile: Hostile, outside: Path, port: int) -> Program:
    return Program(hostile.source.replace("OUTSIDE", str(outside)).replace("PORT", str(port)), hostile.test)


# verdicts by box, for the table of docs/sandbox.md
FOUND: dict[str, dict[str, Verdict]] = {}


@pytest.fixture(scope="module")
def verdicts(box: Box, outside: Path, port: int, request: pytest.FixtureRequest) -> dict[str, Verdict]:
    before = _judges()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "hush")
        found = _run(_chosen(request), box, outside, port)
    _wait_for_judges(before)
    return found


@pytest.fixture(scope="module")
def boxless_verdicts(outside: Path, port: int, request: pytest.FixtureRequest) -> dict[str, Verdict]:
    """Of programs run by root in no box, in a process namespace of the test's own: nobody else is hurt."""
    if os.geteuid() != 0:
        pytest.skip("needs root: they would end every process of this user")

    def act() -> dict[str, list[Any]]:
        os.environ["SECRET"] = "hush"
        found = _run(_chosen(request), Bare(), outside, port)
        return {name: [each.outcome.value, each.detail, each.seconds] for name, each in found.items()}

    try:
        said = in_own_namespace(act)
    except PermissionError as error:
        pytest.skip(f"no process namespaces on this machine: {error}")
    found = {
        name: Verdict(Outcome(outcome), detail, seconds) for name, (outcome, detail, seconds) in said.items()
    }
    FOUND["none"] = found
    return found


def _judges() -> set[int]:
    """Processes of sandboxes that are running."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"sandbox.inside" in line or b"inside/enter.py" in line:
                found.add(int(process.name))
    return found


def _wait_for_judges(before: set[int]) -> None:
    """That none is left of those there are now; those that tests beside this one start end by themselves."""
    left = _judges() - before
    deadline = time.monotonic() + SPARE_SECONDS
    while left & _judges() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left & _judges(), "processes are left"


@pytest.mark.parametrize("name", _named())
def test_a_hostile_program_is_contained_and_reported(name: str, verdicts: dict[str, Verdict]) -> None:
    verdict, expected = verdicts[name], EVERY[name]
    assert verdict.outcome.value in expected.outcomes.split(), verdict
    assert expected.detail in verdict.detail
    assert verdict.seconds < PATIENT.clock_seconds + SPARE_SECONDS


@pytest.mark.parametrize("name", _named())
def test_without_a_box_a_hostile_program_passes_only_with_right_answers(
    name: str, boxless_verdicts: dict[str, Verdict]
) -> None:
    verdict = boxless_verdicts[name]
    assert not verdict.passed or "passed" in EVERY[name].outcomes.split(), verdict
    assert verdict.seconds < PATIENT.clock_seconds + SPARE_SECONDS


def test_nothing_is_written_outside(verdicts: dict[str, Verdict], outside: Path) -> None:
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not Path("/new").exists()


def test_right_and_wrong_programs(box: Box) -> None:
    tests = [TEST, TEST, "assert f(3) == 9", "f(1, 2, 3)", "assert program.g(1)", "syntax error"]
    sources = [RIGHT, WRONG, RIGHT, RIGHT, RIGHT, RIGHT]
    programs = [Program(*each) for each in zip(sources, tests, strict=True)]
    found = run_programs(programs, box, LIMITS, WORKERS)
    assert [each.passed for each in found] == [True, False, True, False, False, False]
    kinds = ["", "AssertionError", "", "TypeError", "NameError", "SyntaxError"]
    assert [each.detail.split(":")[0] for each in found] == kinds


def test_a_crash_or_a_hang_beside_it_changes_no_verdict(box: Box) -> None:
    crash, hang = "import os\nos.abort()\n", "while True:\n    pass\n"
    programs = [Program(each, TEST) for each in (RIGHT, crash, hang, WRONG) * 3]
    found = run_programs(programs, box, LIMITS, WORKERS)
    expected = [Outcome.PASSED, Outcome.CRASHED, Outcome.TIMEOUT, Outcome.FAILED] * 3
    assert [each.outcome for each in found] == expected


VALUES = """
import collections, decimal, fractions, math
values = [
    None, True, 0, -(10**30), 0.1, math.inf, 1 + 2j, "\\ud800 é", b"\\x00", bytearray(b"x"), range(1, 9, 2),
    [1, [2, (3,)]], (), {1, 2}, frozenset("ab"), {"a": {(1, 2): None}}, collections.deque([1]),
    decimal.Decimal("0.10"), fractions.Fraction(1, 3), int, ValueError,
]
"""


def test_plain_values_go_to_the_program_and_come_back_the_same(box: Box) -> None:
    test = VALUES + (
        "for value in values:\n"
        "    found = program.f(value)\n"
        "    assert (type(found), found) == (type(value), value), value\n"
    )
    verdict = run_program(Program("def f(x):\n    return x\n", test), box, LIMITS)
    assert verdict.passed, verdict


PYTHON = """
import math
class Pair:
    def __init__(self, a, b=1):
        self.a, self.b = a, b
def first(pairs):
    return pairs[0].a
def sort(items, table):
    items.sort()
    table["n"] = len(items)
def adder(n):
    return lambda x: x + n
def count(n):
    yield from range(n)
def fail():
    raise KeyError("no such key")
def named(*, key):
    return key
"""
PYTHON_TEST = """
assert first([Pair(3), Pair(b=2, a=4)]) == 3 and Pair(7).b == 1
items, table = [3, 1, 2], {}
assert sort(items, table) is None and items == [1, 2, 3] and table == {"n": 3}
assert adder(2)(5) == 7 and list(count(3)) == [0, 1, 2] and math.pi > 3
assert Pair(1) != Pair(1) and (pair := Pair(1)) == pair
try:
    fail()
except LookupError as error:
    assert type(error) is KeyError
else:
    assert False
assert named(key=3) == 3 and program.math is math
"""


def test_a_test_uses_a_program_as_if_it_were_beside_it(box: Box) -> None:
    verdict = run_program(Program(PYTHON, PYTHON_TEST), box, LIMITS)
    assert verdict.passed, verdict


@pytest.mark.skipif(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY, reason="/proc/sys is read-only here")
def test_there_are_no_namespaces_in_the_namespace(box: Box) -> None:
    source = "import ctypes\ndef f(flags):\n    return ctypes.CDLL(None).unshare(flags)\n"
    verdict = run_program(Program(source, "assert f(0) == 0 and f(0x10000000) == -1"), box, LIMITS)
    assert verdict.passed, verdict


def test_installed_packages_are_there(box: Box) -> None:
    source = "import numpy\ndef f(x):\n    return numpy.int64(x) ** 2\n"
    verdict = run_program(Program(source, TEST), box, Limits())
    assert verdict.passed, verdict


def test_packages_in_the_temporary_folder_are_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment may lie in /tmp, which is a file system of its own inside."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        site = Path(name, "site")
        site.mkdir()
        (site / "tenfold.py").write_text("def by_ten(x):\n    return 10 * x\n")
        monkeypatch.setattr(view.sysconfig, "get_path", lambda _: str(site))
        _forget()
        source = (
            "import os, tenfold\nopen('/tmp/mine', 'w').close()\ndef f(x):\n    return tenfold.by_ten(x)\n"
        )
        verdict = run_program(Program(source, "assert f(2) == 20"), Namespaces(), LIMITS)
        assert [path.name for path in Path(name).iterdir()] == ["site"]
    _forget()
    assert verdict.passed, verdict


def test_a_broken_box_blames_no_program() -> None:
    class Broken(Namespaces):
        def command(self, inner: object, disk_bytes: object) -> list[str]:
            return ["/bin/sh", "-c", "echo no room >&2; exit 1"]

    with pytest.raises(SandboxError, match="no room"):
        run_program(Program(RIGHT, TEST), Broken(), LIMITS)


# -------------------------------------------------------------------------------- machines without a sandbox


@pytest.fixture
def no_box(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose kernel refuses both."""
    refused = ["/bin/sh", "-c", "echo refused >&2; exit 1"]
    for kind in (Bubblewrap, Namespaces):
        monkeypatch.setattr(kind, "command", lambda *_: refused)
    _forget()
    yield
    _forget()


def test_without_a_sandbox_programs_are_refused_unless_allowed(no_box: None) -> None:
    line = "evaluation.allow_unsandboxed_code: is false, .*bubblewrap: refused; namespaces: refused"
    with pytest.raises(ConfigError, match=line):
        box_for(allow_unsandboxed=False)
    assert isinstance(box_for(allow_unsandboxed=True), Bare)


def test_leave_to_do_without_a_sandbox_is_not_used_where_there_is_one() -> None:
    if boxes.available_box() is None:
        pytest.skip("no sandbox on this machine")
    assert box_for(allow_unsandboxed=True).contained


DAEMON = HOSTILE["daemon"].source


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (RIGHT, "passed"),
        (WRONG, "failed"),
        ("while True:\n    pass\n", "timeout"),
        ("x = bytearray(1 << 40)\n", "out_of_memory"),
        ("import os\nos._exit(0)\n", "exited"),
        (DAEMON, "passed"),
        # root's judge has another user than the program
        (
            "import os\nos.kill(os.getppid(), 9)\nwhile True:\n    pass\n",
            "forbidden" if os.geteuid() == 0 else "crashed",
        ),
    ],
)
def test_without_a_sandbox_limits_and_verdicts_remain(source: str, outcome: str) -> None:
    before = _judges()
    assert run_program(Program(source, TEST), Bare(), LIMITS).outcome.value == outcome
    _wait_for_judges(before)


# ------------------------------------------------------------------------------------------------ the table


def test_the_table_of_the_docs(request: pytest.FixtureRequest) -> None:
    """The last of this file: what became of the programs above, printed with -s."""
    if request.config.getoption("capture") != "no" or not FOUND:
        pytest.skip("with -s")
    print(f"\n| program | {' | '.join(f'{name} | s' for name in FOUND)} |\n|{'---|' * (1 + 2 * len(FOUND))}")
    for name in EVERY:
        cells = [_cells(found[name]) for found in FOUND.values() if name in found]
        if cells:
            print(f"| {name} | {' | '.join(cells)} |")


def _cells(verdict: Verdict) -> str:
    return f"{verdict.outcome.value} | {verdict.seconds:.1f}"
