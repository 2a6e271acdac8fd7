r"""One training under the rule "fisher": \bar F_o at its begin, weights at its merges, \bar F at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerState, TrainingArguments

from sfa_hf.engines.base import Engine, Shard
from sfa_hf.errors import ConfigError
from sfa_hf.moments.current import SecondMoments
from sfa_hf.moments.entry_weights import EntryWeights, FisherWeights
from sfa_hf.moments.past import AnchorMoments, refuse_other_moments


def refuse_second_saver(state: TrainerState, *, allowed: int) -> None:
    r"""Refuse a training in which \bar F of one callback would replace another's in ``second_moments``.

    Args:
        state: of a training that begins. At a resume nothing is refused: the Trainer's record of callbacks
            grows with each save there.
        allowed: how many ``SFACallback(rule="fisher")`` there may be.

    Raises:
        ConfigError: there are more.
    """
    if state.global_step > 0:
        return
    kept = (state.stateful_callbacks or {}).values()
    states = [each for entry in kept for each in (entry if isinstance(entry, list) else [entry])]
    savers = [each for each in states if each.get("args", {}).get("rule") == "fisher"]
    if len(savers) > allowed:
        problem = "of this training would be saved twice in output_dir, the second over the first"
        right = "one SFACallback(rule='fisher'), or one SecondMomentsCallback, but not both"
        raise ConfigError("second_moments", problem, right)


@dataclass(frozen=True)
class FisherOptions:
    r"""The arguments of ``SFACallback`` that are about F.

    Attributes:
        beta: \beta.
        power: q.
        anchor_moments: folder of \bar F_o, "constant", or None to look in and beside the anchor.
        anchor: the anchor's folder, or None.
        device: where \bar F_o is kept: "cpu", "disk" or "device".
        shuffle: seed of the shuffled control; None for none.
    """

    beta: float
    power: float
    anchor_moments: str | None
    anchor: str | None
    device: str
    shuffle: int | None


class FisherTraining:
    r"""Holds \bar F_o of this rank's shards while a task is trained.

    Args:
        given: the callback's options.
        engine: where the weights live.
        optimizer: the training's, in any wrapper.
        args: the training's.

    Attributes:
        nbytes: bytes that \bar F_o takes on this rank.

    Raises:
        ConfigError: there are no second moments of the tasks before.
        NotImplementedError: the optimizer has none of this task's.
    """

    def __init__(self, given: FisherOptions, engine: Engine, optimizer: Any, args: TrainingArguments) -> None:
        self._given, self._engine, self._rank = given, engine, args.process_index
        self._moments = SecondMoments(engine, optimizer)
        self.nbytes = 0
        self._before = AnchorMoments(given.anchor_moments, given.anchor, given.shuffle, str(args.output_dir))

    def begin(self, names: Sequence[str], shards: Sequence[Shard]) -> dict[str, Any]:
        r"""Take \bar F_o; a collective call.

        Args:
            names: of all merged parameters, in one order on all ranks.
            shards: those of this rank.

        Returns:
            What a checkpoint keeps of it.

        Raises:
            ConfigError: it does not fit the model, has changed, or there is no room.
        """
        try:
            before, record = self._before.take(self._engine, shards, self._given.device, self._rank)
        except BaseException:
            self.release()
            raise
        self.nbytes = 0 if before is None else before.nbytes
        self._weights = FisherWeights(self._engine, self._moments, before, names, self._given.power)
        return asdict(record)

    def begin_again(
        self, names: Sequence[str], shards: Sequence[Shard], recorded: dict[str, Any] | None
    ) -> dict[str, Any]:
        r"""Take \bar F_o of a training that resumes.

        Args:
            names: as for :meth:`begin`.
            shards: as for :meth:`begin`.
            recorded: what the checkpoint keeps of it.

        Raises:
            ConfigError: it is not the one that the training began with.
        """
        record = self.begin(names, shards)
        try:
            refuse_other_moments(record, recorded)
        except BaseException:
            self.release()
            raise
        return record

    def prefetch(self, shards: Sequence[Shard]) -> None:
        """Start to bring what the next merge reads to the device."""
        self._weights.prefetch(shards)

    def at_merge(self, shards: Sequence[Shard]) -> EntryWeights:
        """The weights of a merge that begins; a collective call."""
        return self._weights.at_merge(shards, self._given.beta)

    def end(self, shards: Sequence[Shard]) -> None:
        r"""Save \bar F for the next task; a collective call.

        Raises:
            ConfigError: there is no room.
        """
        self._before.save(self._engine, shards, self._moments, self._given.beta)

    def release(self) -> None:
        """Give back what only this process used."""
        self._before.release()
