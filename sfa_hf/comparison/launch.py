"""Carrying out a plan: one run after another, each restartable, with the report kept up to date."""

from __future__ import annotations

import logging
import traceback

from sfa_hf.comparison.found import FoundRun, find_runs, run_folders
from sfa_hf.comparison.plan import Plan, PlannedRun
from sfa_hf.comparison.writing import write_comparison
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError, Diverged, Preempted
from sfa_hf.files.atomic import no_room
from sfa_hf.hf_trainer.arguments import training_arguments
from sfa_hf.hf_trainer.preemption import Preemption
from sfa_hf.sequence.borrowing import borrow_first_task
from sfa_hf.sequence.claim import claimed
from sfa_hf.sequence.fingerprints import fingerprints
from sfa_hf.sequence.runner import check_run, joined_processes, run_claimed

logger = logging.getLogger(__name__)


def carry_out(plan: Plan) -> None:
    """Run what is not finished, and write the comparison's files after each run and at the end.

    Called on every process of a launch. Several launches may share the work of one folder: a run that another
    one is at is left to it.

    A run that is refused for what is its own (its method, its folder), or that diverges, is noted, and the
    others go on. So do they where a run fails in another way, if this launch is a single process; the
    processes of a larger one could no longer be trusted to agree. What all runs have in common, a full disk
    and SIGTERM end the launch at once; the same command continues.

    Raises:
        ConfigError: at once, for what all runs share; at the end, naming the first of the runs that failed.
        Preempted: SIGTERM was heard.
    """
    preemption = Preemption()
    with preemption.heard():
        # the process group starts as the runs will start it: the first question to all comes before them
        config = plan.runs[0].config
        training_arguments(config.training[0], config.output_dir, config.seed)
        joined_processes()
        failed = _carry_out_runs(plan, preemption)
        _report(plan)
    if failed:
        run, problem = failed[0]
        told = f"{len(failed)} of {len(plan.runs)} runs failed, the first of them: {problem}"
        raise ConfigError(str(run), told, "the others are in the report; the same command tries these again")


def _carry_out_runs(plan: Plan, preemption: Preemption) -> list[tuple[PlannedRun, str]]:
    """The runs that failed, each with what it failed with."""
    failed: list[tuple[PlannedRun, str]] = []
    done = _finished(plan)
    for index, run in enumerate(plan.runs, start=1):
        if preemption.asked:
            raise Preempted("stopped by SIGTERM between two runs")
        logger.info("run %d of %d: %s%s", index, len(plan.runs), run, _expected(plan, done))
        with claimed(run.config.output_dir) as holder:
            if holder is not None:
                logger.info("%s: another launch is at it (%s); left to it", run, holder)
            elif (problem := _problem_of(run, plan)) is not None:
                failed.append((run, problem))
        if (run.label, run.seed) not in {(each.label, each.seed) for each in done}:
            done = _finished(plan)
            if index < len(plan.runs):
                _report(plan)
    return failed


def _problem_of(run: PlannedRun, plan: Plan) -> str | None:
    """Carry out a run; what it failed with, or None."""
    try:
        check_run(run.config)
        _borrow(run, plan)
        run_claimed(run.config)
    except Preempted:
        raise
    except ConfigError as error:
        if not _is_its_own(error, run):
            raise
        logger.warning("%s: %s", run, error)
        return str(error)
    except (NotImplementedError, Diverged) as error:  # an engine that the method cannot work on; a NaN
        logger.warning("%s: %s", run, error)
        return str(error)
    except Exception as error:
        if no_room(error) or joined_processes().num_processes > 1:
            raise
        logger.warning("%s failed:\n%s", run, traceback.format_exc())
        return f"{type(error).__name__}: {error}"
    return None


def _borrow(run: PlannedRun, plan: Plan) -> None:
    """Begin with the first task of a run of the same seed that trains it alike, where there is one."""
    if run.config.overwrite or from_first_process(run.config.output_dir.exists):
        return
    lenders = from_first_process(lambda: run_folders(plan.output_dir, run.seed))
    any(borrow_first_task(run.config, lender) for lender in lenders)


def _is_its_own(error: ConfigError, run: PlannedRun) -> bool:
    """Whether the other runs may do without this error: it is about the method, or the run's folder."""
    section = error.key.partition(".")[0]
    return section in ("method", "output_dir") or error.key.startswith(str(run.config.output_dir))


def _finished(plan: Plan) -> tuple[FoundRun, ...]:
    config = plan.runs[0].config
    rows = fingerprints(config.tasks)
    return from_first_process(lambda: find_runs(plan.output_dir, config.resolved, rows).runs)


def _report(plan: Plan) -> None:
    config = plan.runs[0].config
    rows = fingerprints(config.tasks)
    from_first_process(
        lambda: write_comparison(plan.output_dir, config.resolved, rows, plan.labels, plan.reference)
    )


def _expected(plan: Plan, done: tuple[FoundRun, ...]) -> str:
    """How long the rest takes, by the runs that are done; nothing before one is."""
    names = {(run.label, run.seed) for run in done}
    left = sum((run.label, run.seed) not in names for run in plan.runs)
    if not done or not left:
        return ""
    spent = (run.results["cost"].get(part, 0.0) for run in done for part in ("train_seconds", "eval_seconds"))
    each = sum(spent) / len(done)
    rest = f"{_duration(left * each)} for the {left} left"
    return f" (about {_duration(each)} a run by the {len(done)} done, {rest})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
