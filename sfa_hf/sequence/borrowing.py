"""A run that begins where another has been already: most methods train the first task alike."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from accelerate import PartialState

from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.records import check_record
from sfa_hf.files.atomic import link_or_copy
from sfa_hf.files.folders import new_folder
from sfa_hf.files.manifest import damage, read_facts
from sfa_hf.methods import make_method
from sfa_hf.sequence.config import RunConfig
from sfa_hf.sequence.fingerprints import changed_source
from sfa_hf.sequence.run_folder import RunFolder, RunState, differing_keys

logger = logging.getLogger(__name__)

_RECORDS = ("after-0", "after-1")


def borrow_first_task(config: RunConfig, lender: Path) -> bool:
    """Begin a run with the first task, and the scores before and after it, of another run.

    Weights are linked, not copied. The training's seconds count for both runs; its scoring for the lender.
    A collective call of the processes that will run ``config``.

    Args:
        config: of a run that has not begun.
        lender: folder of a run.

    Returns:
        Whether that was done: the configs differ in nothing but methods that train the first task alike, and
        the lender has trained and scored it.
    """
    state = from_first_process(lambda: _lent(config, lender))
    if state is None or damage(_model(config, lender)):
        return False
    if PartialState().is_main_process:
        _link(config, lender)
        RunFolder(config.output_dir, config.resolved).write(state)
    PartialState().wait_for_everyone()
    logger.info("%s begins with the first task of %s", config.output_dir, lender)
    return True


def _lent(config: RunConfig, lender: Path) -> RunState | None:
    """What the borrower's state will be; None where nothing can be borrowed."""
    if config.output_dir.exists() or not (lender / "config.yaml").is_file():
        return None
    try:
        state = _alike(config, lender)
        records = {} if state is None else _records(lender, state.records)
    except ConfigError as error:
        logger.warning("nothing is borrowed of %s: %s", lender, error)  # its own launch will refuse it
        return None
    if state is None or state.evaluated < 2 or state.world_size != PartialState().num_processes:
        return None
    if changed := changed_source(config.tasks, state.rows):
        logger.warning("nothing is borrowed of %s: it was made from other rows of %s (%s)", lender, *changed)
        return None
    first = config.tasks[0].name
    return RunState(
        trained=1,
        scores=state.scores[:2],
        stderr=state.stderr[:2],
        metrics_used=state.metrics_used,
        curve=[point for point in state.curve if point["task"] == first],
        cost={"train_seconds": read_facts(_model(config, lender))["seconds"]},
        engine=state.engine,
        world_size=state.world_size,
        rows=state.rows,
        records=records,
    )


def _alike(config: RunConfig, lender: Path) -> RunState | None:
    """The state of a run that trains the first task as ``config`` does; None of another."""
    theirs = read_yaml(lender / "config.yaml")
    if any(not key.startswith("method.") for key in differing_keys(theirs, config.resolved)):
        return None
    first = config.method.first_training
    if first is None or first != make_method(theirs["method"]).first_training:
        return None
    return RunFolder(lender, theirs).read()


def _records(lender: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    """The hashes of the lender's records that are linked; ConfigError where one of them has changed."""
    lent = {file: value for file, value in hashes.items() if Path(file).parent.name in _RECORDS}
    for file in lent:
        if (lender / file).is_file():
            check_record(lender, lender / file, lent)
    return lent


def _link(config: RunConfig, lender: Path) -> None:
    task = _model(config, lender).parent.name
    kept = [f"{task}/{name}" for name in ("model", *config.method.KEEPS)]
    with new_folder(config.output_dir) as writing:
        RunFolder(writing, config.resolved).create(overwrite=False)
        for part in (*kept, *(f"records/{name}" for name in _RECORDS)):
            if (lender / part).is_dir():
                shutil.copytree(lender / part, writing / part, copy_function=link_or_copy)


def _model(config: RunConfig, lender: Path) -> Path:
    return lender / f"0-{config.tasks[0].name}" / "model"
