"""Programs that the model writes, run against their tests: pass@k."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sfa_hf.errors import under
from sfa_hf.evaluation.answers import extract
from sfa_hf.evaluation.fences import unfenced
from sfa_hf.evaluation.generation import Choose, greedy_answers
from sfa_hf.evaluation.metrics.loading import compute
from sfa_hf.evaluation.options import EvaluationOptions
from sfa_hf.evaluation.prompts import generation_prompts
from sfa_hf.evaluation.sampling import Draw
from sfa_hf.evaluation.sandbox import Limits, Outcome, Program, Verdict, box_for, run_programs
from sfa_hf.evaluation.scoring.base import Asked, Job, Judged
from sfa_hf.evaluation.sharing import progress_bar, run_shared
from sfa_hf.tasks.code import CodeScoring
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.encoding import as_conversation
from sfa_hf.tasks.task import Row
from sfa_hf.tasks.templates import Template

METRICS = ("pass@1",)

# programs given to a process at a time, for each that it runs at once: few wait for the last of them
_PROGRAMS_A_WORKER = 8


@dataclass(frozen=True)
class Attempt:
    """One completion of a prompt, and what became of its program."""

    completion: str
    verdict: Verdict


def ask(job: Job) -> Asked[list[Attempt]]:
    """``samples`` completions of every prompt, and the verdicts on their programs."""
    box = box_for(allow_unsandboxed=job.options.allow_unsandboxed_code)  # refused before the model runs
    completions, cut = _completions(job)
    programs = programs_of(job.rows, completions, job.scoring)
    limits = limits_of(_code(job.scoring))
    workers = workers_of(job.options)

    def run(batch: Sequence[int]) -> list[Verdict]:
        return run_programs([programs[i] for i in batch], box, limits, workers)

    size = workers * _PROGRAMS_A_WORKER
    batches = [range(start, min(start + size, len(programs))) for start in range(0, len(programs), size)]
    with progress_bar(f"{job.task}: programs", len(programs), job.options.progress) as bar:
        verdicts = run_shared(batches, run, in_step=False, bar=bar)
    attempts = [Attempt(*each) for each in zip(completions, verdicts, strict=True)]
    samples = _code(job.scoring).samples
    return Asked([attempts[start : start + samples] for start in range(0, len(attempts), samples)], cut)


def workers_of(options: EvaluationOptions) -> int:
    """Programs that this process runs at once: by default one a core, shared with those beside it."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return options.code_workers or max(1, len(os.sched_getaffinity(0)) // beside)


def judge(task: str, rows: Sequence[Row], answers: Sequence[list[Attempt]], scoring: Scoring) -> Judged:  # noqa: ARG001
    """pass@1, over rows.

    Metrics: pass@k for every k of the task; of the other outcomes that occurred, the share of programs.
    """
    code = _code(scoring)
    passed = [sum(attempt.verdict.passed for attempt in attempts) for attempts in answers]
    metrics = compute("pass_at_k", samples=[code.samples for _ in rows], passed=passed, k=code.k)
    stderr = metrics.pop("pass@1_stderr")
    counts = Counter(attempt.verdict.outcome for attempts in answers for attempt in attempts)
    programs = len(rows) * code.samples
    metrics |= {
        outcome.value: counts[outcome] / programs
        for outcome in Outcome
        if counts[outcome] and outcome is not Outcome.PASSED
    }
    records = [
        {
            "index": row.index,
            "prompt": row.prompt,
            "target": row.target,
            "completions": [
                {
                    "text": attempt.completion,
                    "outcome": attempt.verdict.outcome.value,
                    "detail": attempt.verdict.detail,
                }
                for attempt in attempts
            ],
            "score": count / code.samples,
        }
        for row, attempts, count in zip(rows, answers, passed, strict=True)
    ]
    return Judged(metrics["pass@1"], stderr, metrics, records)


def _completions(job: Job) -> tuple[list[str], int]:
    """Sample s of row r at place r * samples + s."""
    code, limit = _code(job.scoring), job.scoring.max_new_tokens
    prompts, cut = generation_prompts(job.task, job.rows, job.live, job.encoding, limit)
    # an instruct model writes whole functions in a fence: what ends a body, such as "\ndef", is within them
    stop = () if any(as_conversation(row, job.encoding) for row in job.rows) else job.scoring.stop
    repeated = [prompt for prompt in prompts for _ in range(code.samples)]

    def step(batch: Sequence[int]) -> list[str]:
        chosen = [repeated[i] for i in batch]
        return greedy_answers(job.live, chosen, limit, stop, _choice(job, batch))

    return job.run([len(prompt) for prompt in repeated], step), cut


def _choice(job: Job, batch: Sequence[int]) -> Choose | None:
    """How tokens are drawn; None: the likeliest is taken."""
    code = _code(job.scoring)
    if code.temperature == 0:
        return None
    seeds = [(code.seed, job.rows[i // code.samples].index, i % code.samples) for i in batch]
    steps = job.scoring.max_new_tokens
    return lambda prompt_length: Draw(seeds, steps, code.temperature, code.top_p, prompt_length)


def programs_of(rows: Sequence[Row], completions: Sequence[str], scoring: Scoring) -> list[Program]:
    """Programs and tests from completions, ``samples`` of each row one after another."""
    code = _code(scoring)
    source, test = Template(code.program), Template(code.test)
    tests = [test.render(row.columns) for row in rows]
    found = []
    for place, completion in enumerate(completions):
        row = place // code.samples
        # where the task's pattern finds no program in the answer, there is none
        with under("scoring.extract"):
            text = extract(completion, scoring.extract) or ""
        program = partial(_program, source, rows[row])
        found.append(Program(program(text) if scoring.extract else unfenced(text, program), tests[row]))
    return found


def _program(source: Template, row: Row, completion: str) -> str:
    return source.render({**row.columns, "completion": completion})


def limits_of(code: CodeScoring) -> Limits:
    return Limits(cpu_seconds=code.cpu_seconds, memory_mb=code.memory_mb)


def _code(scoring: Scoring) -> CodeScoring:
    if scoring.code is None:
        raise ValueError("scoring of kind code has a code section")  # Scoring sees to it
    return scoring.code
