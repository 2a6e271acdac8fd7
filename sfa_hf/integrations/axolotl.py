"""SFA as a plugin of axolotl: ``plugins: [sfa_hf.integrations.axolotl.SFAPlugin]``."""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel, ConfigDict, create_model

from sfa_hf.callbacks.sfa import SFACallback
from sfa_hf.config.declared import options_of

_FIELDS: Any = {option.name: (option.annotation, option.default) for option in options_of(SFACallback)}

SFAOptions = create_model("SFAOptions", __config__=ConfigDict(extra="forbid"), **_FIELDS)
"""The options of :class:`sfa_hf.SFACallback`, by its own declarations: an unknown key is an error."""


class SFAArgs(BaseModel):
    """What axolotl's schema takes on.

    Attributes:
        sfa: options of :class:`sfa_hf.SFACallback`; without the key no weights are averaged.
    """

    sfa: SFAOptions | None = None  # type: ignore[valid-type]


class SFAPlugin(BasePlugin):
    """Adds :class:`sfa_hf.SFACallback` to axolotl's trainer."""

    def get_input_args(self) -> str:
        return f"{__name__}.SFAArgs"

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[SFACallback]:
        del model
        return [] if cfg.sfa is None else [SFACallback(**cfg.sfa)]
