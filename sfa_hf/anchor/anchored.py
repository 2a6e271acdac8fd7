r"""What everything with an anchor does: which parameters it is about, and \theta_o of this rank's shards."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sfa_hf import engines
from sfa_hf.adapters.groups import find_groups
from sfa_hf.anchor.factors import Factors
from sfa_hf.anchor.taker import AnchorRecord, AnchorTaker
from sfa_hf.config.patterns import Pattern, compiled
from sfa_hf.errors import ConfigError, under
from sfa_hf.shards.buffer import ShardBuffer


class Began(NamedTuple):
    """What a training that resumes is told of its start.

    Attributes:
        recorded: what its anchor was; None where nothing says so.
        checkpoint: folder from which it resumes; None where the training keeps no folders.
    """

    recorded: AnchorRecord | None
    checkpoint: Path | None


class Anchored:
    r"""Holds \theta_o of this rank's shards while a training lasts, the same one after a resume.

    A subclass sets ``_engine``. It works with ``_theta_o``, ``_shards()`` and ``_names``: those of its
    parameters, in one order on all ranks. To merge adapters as updates of the weights, it sets ``lora`` to
    "exact": ``_factors`` are theirs then, and ``_theta_o`` has the layout of ``_factors.places``.

    Args:
        anchor: \theta_o: None for the weights at the start, or a local folder or Hub id with safetensors.
        anchor_device: name of the store that keeps it.
        anchor_dtype: "float32" or "bfloat16".
        include: regular expression searched in parameter names; others are left alone.
        exclude: regular expression; parameters whose names it is found in are left alone.
        save_anchor: save the weights at the start, where they are the anchor.
    """

    _engine: engines.Engine
    _theta_o: ShardBuffer
    _taker: AnchorTaker

    def __init__(
        self,
        anchor: str | PathLike[str] | None,
        anchor_device: str,
        anchor_dtype: str,
        include: str | None,
        exclude: str | None,
        *,
        save_anchor: bool,
    ) -> None:
        self.anchor = None if anchor is None else fspath(anchor)
        self.anchor_device = anchor_device
        self.anchor_dtype = anchor_dtype
        self.include = None if include is None else compiled(include)
        self.exclude = None if exclude is None else compiled(exclude)
        self.save_anchor = save_anchor
        self.lora = "factors"
        self.anchor_record: dict[str, Any] | None = None
        self.nbytes = 0

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError where the patterns leave no trainable parameter of the model, also on "meta"."""
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._names = [name for name in names if self._concerns(name)]
        if not self._names:
            argument = "include" if self.exclude is None else "exclude"
            problem = (
                f"include={_text(self.include)}, exclude={_text(self.exclude)} leave no trainable parameter"
            )
            raise ConfigError(argument, problem, f"patterns for names like {', '.join(names[:3])}")
        self._factors = Factors(find_groups(model, self._concerns) if self.lora == "exact" else ())

    def _take_anchor(
        self, model: nn.Module, output_dir: str, rank: int, *, began: Began | None, saves: bool
    ) -> None:
        """Take the anchor; a collective call.

        Args:
            model: in training.
            output_dir: the training's.
            rank: this process.
            began: of a training that resumes; None for one that begins.
            saves: whether the training can resume, so that weights at the start are worth saving.
        """
        shards, engine = self._shards(), self._engine
        self._taker = AnchorTaker(
            self.anchor, self.anchor_device, self.anchor_dtype, output_dir, rank, factors=self._factors
        )
        try:
            if began is not None:
                self._theta_o, record = self._taker.take_again(engine, model, shards, *began)
            else:
                self._theta_o, record = self._taker.take(engine, model, shards)
            self._factors.begin(engine, shards, self._theta_o)
            if began is None and self.anchor is None and self.save_anchor and saves:
                self._taker.save(engine, self._theta_o, record)
        except BaseException:
            self._taker.release()
            raise
        self.nbytes = self._theta_o.nbytes
        self.anchor_record = asdict(record)

    def _release_anchor(self) -> None:
        """Let go of the anchor: the training has ended."""
        del self._theta_o
        self._taker.release()

    def _patterns(self) -> dict[str, str | None]:
        pairs = {"include": self.include, "exclude": self.exclude}
        return {key: None if pattern is None else pattern.pattern for key, pattern in pairs.items()}

    def _shards(self) -> list[engines.Shard]:
        return [shard for shard in self._engine.shards() if self._concerns(shard.name)]

    def _concerns(self, name: str) -> bool:
        with under("exclude"):
            if self.exclude is not None and self.exclude.found_in(name):
                return False
        with under("include"):
            return self.include is None or self.include.found_in(name)


def _text(pattern: Pattern | None) -> str:
    return "None" if pattern is None else repr(pattern.pattern)
