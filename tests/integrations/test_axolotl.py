"""The plugin in axolotl's own plugin manager and schema."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sfa_hf import SFACallback

base = pytest.importorskip("axolotl.integrations.base")
PLUGIN = "sfa_hf.integrations.axolotl.SFAPlugin"


@pytest.fixture
def manager() -> object:
    manager = base.PluginManager.get_instance()
    manager.register(PLUGIN)
    return manager


def test_the_config_is_checked_and_makes_the_callback(manager) -> None:
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.dict import DictDefault

    from sfa_hf.integrations.axolotl import SFAArgs

    assert "sfa" in merge_input_args()[1].model_fields
    checked = SFAArgs(sfa={"beta": 0.3, "p": 0.5, "exclude": "head"}).model_dump(exclude_none=True)
    (callback,) = manager.add_callbacks_pre_trainer(DictDefault(checked), None)
    assert isinstance(callback, SFACallback)
    assert (callback.beta, callback.p, callback.exclude.pattern) == (0.3, 0.5, "head")
    assert manager.add_callbacks_pre_trainer(DictDefault({}), None) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"beta": 2}, "is not the weight of an average"), ({"bta": 0.3}, "Extra inputs are not permitted")],
)
def test_what_cannot_be_right_is_refused(options: dict, problem: str) -> None:
    from sfa_hf.integrations.axolotl import SFAArgs

    with pytest.raises(ValidationError, match=problem):
        SFAArgs(sfa=options)
