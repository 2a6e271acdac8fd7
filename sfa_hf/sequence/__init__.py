"""The task-sequence runner."""

from sfa_hf.config.overrides import parse_overrides
from sfa_hf.sequence.config import RunConfig, load_config, make_config
from sfa_hf.sequence.runner import run_sequence

__all__ = ["RunConfig", "load_config", "make_config", "parse_overrides", "run_sequence"]
