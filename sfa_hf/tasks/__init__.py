"""Tasks: training rows and held-out rows as prompts and targets, and how they become token ids."""

from sfa_hf.tasks.config import DataSource, Scoring, TaskConfig
from sfa_hf.tasks.contamination import Contamination, contamination
from sfa_hf.tasks.encoding import (
    DataOptions,
    Encoding,
    EncodingReport,
    RightPad,
    collator,
    encode,
    prompt_ids,
    rows_hash,
    target_ids,
)
from sfa_hf.tasks.task import Row, Task, load_task

__all__ = [
    "Contamination",
    "DataOptions",
    "DataSource",
    "Encoding",
    "EncodingReport",
    "RightPad",
    "Row",
    "Scoring",
    "Task",
    "TaskConfig",
    "collator",
    "contamination",
    "encode",
    "load_task",
    "prompt_ids",
    "rows_hash",
    "target_ids",
]
