"""Order of the tests, and what is compiled while the first of them run.

This file also puts this folder on the import path, so that tests in every folder share its helpers.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Two threads on two cores, one of which compiles or belongs to another process, spend their time waiting for
# each other: tiny models are faster on one. Before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# DeepSpeed builds an op the first time that it is used, in a minute or more: a test whose processes were
# waiting for a compiler would count as hung. torch's lock outlives a build that was killed, and the next one
# waits for it for ever: FileLock's does not, and who holds it may clear torch's away. What is built is left
# alone: the worker that comes second must not touch what processes of the first worker's tests are loading.
_BUILD = """
import os, pathlib, sys
import deepspeed, torch
from deepspeed.accelerator import get_accelerator
from filelock import FileLock
folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"])
with FileLock(folder / "building"):
    for name in sys.argv[1:]:
        built = folder / f"{name}-{deepspeed.__version__}-{torch.__version__}"
        if built.exists():
            continue
        for left in folder.glob("*/lock"):
            left.unlink()
        builder = get_accelerator().create_op_builder(name)
        if builder is not None:
            builder.load(verbose=False)
        built.touch()
"""
_OP = "ShareMemCommBuilder"  # of DeepSpeed's communication
_SLOW_OPS = ("CPUAdamBuilder", "FusedAdamBuilder")  # of optimizers, which slow tests alone have
_NEED_OPS = ("distributed", "faults", "evaluation/test_sharing.py", "integrations/test_trl", "test_readme.py")
_builds = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_configure(config: pytest.Config) -> None:
    """Time no test; give them a folder of ops of their own, so that no other program's lock holds them up."""
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    os.environ["TORCH_EXTENSIONS_DIR"] = str(config.cache.mkdir("deepspeed_ops"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what needs DeepSpeed's ops after half of the others: they are compiled meanwhile.

    Not last, so that of two workers one does not wait in the end for the other, which has all of these.
    """
    others = [item for item in items if not _needs_ops(item)]
    first = {_file(item) for item in others[: len(others) // 2]}
    items.sort(key=lambda item: 1 if _needs_ops(item) else 0 if _file(item) in first else 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file whole, and all that start processes on one worker: one distributed job at a time."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "processes" if file.removeprefix("tests/").startswith(_NEED_OPS) else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)  # before the loop itself, which a worker of xdist has in a plugin
def pytest_runtestloop(session: pytest.Session) -> None:
    needed = list(filter(_needs_ops, session.items))
    if needed and not session.config.option.collectonly:
        slow = any(item.get_closest_marker("slow") for item in needed)
        session.stash[_builds] = subprocess.Popen(
            [sys.executable, "-c", _BUILD, _OP, *(_SLOW_OPS if slow else ())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


@pytest.fixture(scope="session")
def deepspeed_ops(request: pytest.FixtureRequest) -> None:
    build = request.session.stash[_builds]
    _, error = build.communicate(timeout=900)
    assert build.returncode == 0, error.decode(errors="replace")


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    if _needs_ops(request.node):
        request.getfixturevalue("deepspeed_ops")


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Take what a file's imports made from the garbage collector, which each Trainer calls at its start.

    It went through torch, transformers and DeepSpeed for 0.4 s, three times what a training of these takes.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (build := session.stash.get(_builds, None)) is not None:
        build.kill()


def _needs_ops(item: pytest.Item) -> bool:
    return _file(item).startswith(_NEED_OPS)


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()
