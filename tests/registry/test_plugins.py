"""A file in a folder is a plug-in: engines and scorings. Rules, stores and methods have their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import tiny_model

from sfa_hf import engines
from sfa_hf.engines.attach import known_engines
from sfa_hf.rules import known_rules
from sfa_hf.tasks.config import Scoring
from sfa_hf.tasks.scorings import known_scorings
from tests.plugins import plugged

ENGINE = """
from sfa_hf.engines.plain import PlainEngine


class Marked(PlainEngine):
    name = "marked"
    LAST = False

    @classmethod
    def fits(cls, model, optimizer):
        return getattr(model, "marked", False)
"""

SCORING = """
METRICS = ("length",)


def ask(job): ...


def judge(task, rows, answers, scoring): ...
"""

RULE = """
from typing import ClassVar

from sfa_hf.rules.average import Average


class Another(Average):
    name: ClassVar[str] = "slerp"
"""


def test_an_engine_that_fits_goes_before_those_for_any_optimizer(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters())
    with plugged("sfa_hf.engines", "marked", ENGINE, known_engines, tmp_path):
        assert engines.attach(model, optimizer).name == "plain"
        model.marked = True
        assert engines.attach(model, optimizer).name == "marked"


def test_two_engines_that_fit_are_an_error(tmp_path: Path) -> None:
    model = tiny_model()
    model.marked = True
    twice = ENGINE + ENGINE.replace("class Marked", "class Again")
    with (
        plugged("sfa_hf.engines", "marked", twice, known_engines, tmp_path),
        pytest.raises(RuntimeError, match="Marked and Again both fit"),
    ):
        engines.attach(model, torch.optim.SGD(model.parameters()))


def test_a_kind_of_scoring_has_metrics_of_its_own(tmp_path: Path) -> None:
    with plugged("sfa_hf.evaluation.scoring", "counting", SCORING, known_scorings, tmp_path):
        assert Scoring.model_validate({"kind": "counting"}).metric == "length"
        with pytest.raises(ValueError, match="metrics of kind counting: length"):
            Scoring.model_validate({"kind": "counting", "metric": "f1"})
    with pytest.raises(ValueError, match="known: choice, code, generate, perplexity"):
        Scoring.model_validate({"kind": "counting"})


def test_two_plugins_of_one_name_are_an_error(tmp_path: Path) -> None:
    with (
        plugged("sfa_hf.rules", "another", RULE, known_rules, tmp_path),
        pytest.raises(RuntimeError, match=r"two plug-ins of sfa_hf\.rules are named 'slerp'"),
    ):
        known_rules()
