r"""SFA in a training loop of one's own: plain torch, accelerate, DeepSpeed and FSDP2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import fspath
from typing import Annotated, Any

from torch import nn

from sfa_hf import engines
from sfa_hf.anchor.anchored import Began
from sfa_hf.anchor.start_weights import start_folder
from sfa_hf.anchor.taker import AnchorRecord, refuse_another
from sfa_hf.averaging.averaging import Averaging
from sfa_hf.config.declared import checked, passes_on
from sfa_hf.config.options import Check, Seed, Source, whole
from sfa_hf.distributed.processes import from_every_process, from_first_process, rank
from sfa_hf.engines.wrapped import unwrapped
from sfa_hf.errors import ConfigError, nearest
from sfa_hf.hf_trainer import begin
from sfa_hf.shards.store import known_stores

Log = Callable[[Mapping[str, float], int], None]
TotalSteps = Annotated[
    int, whole(lambda steps: steps >= 1, "is not a number of steps", "a whole number from 1 on")
]
_Log = Annotated[Log, Check(callable, "cannot be called", "a function of a mapping and a step")]


class SFA(Averaging):
    r"""Averages the weights in a training loop with an anchor: every pT of the T steps, and at the end.

    Example:
        >>> sfa = SFA(beta=0.5, p=0.25, total_steps=1000)
        >>> sfa.attach(model, optimizer)
        >>> for batch in batches:
        ...     model(**batch).loss.backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     sfa.step()

    Every process calls ``attach``, ``step``, ``end`` and ``load_state_dict`` alike: they communicate.
    """

    @passes_on(Averaging.__init__)
    @checked
    def __init__(
        self,
        *args: Any,
        total_steps: TotalSteps,
        output_dir: Source | None = None,
        log: _Log | None = None,
        seed: Seed = 0,
        **options: Any,
    ) -> None:
        r"""Options of the loop, beside those of :class:`sfa_hf.SFACallback`.

        Args:
            *args: \beta and p, as for :class:`sfa_hf.SFACallback`.
            total_steps: T, optimizer steps that the loop takes.
            output_dir: folder, shared by all processes, of an anchor that is kept in files, of the second
                moments of ``rule="fisher"``, and with ``anchor=None`` of the weights at the start, which a
                resume then finds there; None for none of these.
            log: called by the first process, after each merge, with what was measured and the step.
            seed: of the stochastic rounding of 16-bit weights without fp32 masters.
            **options: as for :class:`sfa_hf.SFACallback`.

        Raises:
            ConfigError: an argument that cannot be right.
        """
        super().__init__(*args, **options)
        self.total_steps = total_steps
        self.output_dir = None if output_dir is None else fspath(output_dir)
        self.log = log
        self.seed = seed
        if self.output_dir is None:
            if known_stores()[self.anchor_device].in_file:
                raise ConfigError(
                    "output_dir", f"None beside anchor_device={self.anchor_device!r}", "a folder"
                )
            if self._rule.needs_importances:
                raise ConfigError("output_dir", f"None beside rule={self.rule!r}", "a folder")
        self._step = 0
        self._recorded: dict[str, Any] | None = None
        self._model: nn.Module | None = None
        self._ended = False

    def attach(self, model: nn.Module, optimizer: Any) -> None:
        r"""Take \theta_o of a training that begins, or goes on: before its first step here.

        Args:
            model: as the loop calls it: also in the wrapper of DDP, DeepSpeed or ``torch.compile``.
            optimizer: that steps it; under DeepSpeed what ``deepspeed.initialize`` returned.

        Raises:
            ConfigError: patterns that leave no parameter, an anchor that does not fit the model, or another
                one than the training began with.
            NotImplementedError: a set-up whose weights cannot be edited in training.
        """
        if self._model is not None:
            raise RuntimeError("SFA.attach() was called before: make another SFA for another training")
        model = unwrapped(model)
        self.check_model(model)
        self._check_optimizer(optimizer)
        begin.refuse_infinite_groups(optimizer)
        self._engine = from_every_process(lambda: engines.attach(model, optimizer))
        begin.refuse_infinite_values(self._engine, ((s, s.data) for s in self._engine.shards()), "model")
        self._trainable = begin.trainable(model)
        self._schedule_merges(self._step, self.total_steps)
        self._take(model, optimizer)
        self._model = model
        if rank() == 0:
            begin.warn_of_buffers(model)
            self._warn(model)

    def step(self) -> dict[str, float] | None:
        """Call it once after each optimizer step; a collective call.

        Returns:
            What was measured, if this step merged: ``sfa/merge`` and what :class:`sfa_hf.SFACallback` logs.

        Raises:
            RuntimeError: there is no model yet.
            ConfigError: the loop takes more steps than it said.
            Diverged: the weights are not finite.
        """
        if self._model is None:
            raise RuntimeError("SFA.step() before SFA.attach(model, optimizer)")
        if self._ended:
            problem = f"{self.total_steps}, and this is step {self._step + 1}, or comes after end()"
            raise ConfigError("total_steps", problem, "the number of optimizer steps that the loop takes")
        begin.refuse_changes(self._trainable, self._model, self._step)
        self._step += 1
        record = self._merge_and_log() if self._merges_after(self._step) else None
        if self._step == self.total_steps:
            self.end()
        elif self._merges_after(self._step + 1):
            self._prefetch()
        return record

    def end(self) -> dict[str, float] | None:
        """End a training before its last step: merge, unless the last step did; a collective call.

        After ``total_steps`` steps it has been called.

        Returns:
            As :meth:`step`.
        """
        if self._model is None or self._ended:
            return None
        record = self._merge_and_log() if 0 < self._step != self._last_merge else None
        self._ended = True
        self._end_weighting(stepped=self._step > 0)
        self._release_anchor()
        return record

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the step, and which weights the anchor was; a few words of JSON."""
        return {
            "step": self._step,
            "last_merge": getattr(self, "_last_merge", 0),
            "patterns": self._patterns(),
            "anchor_record": self.anchor_record or (self._recorded or {}).get("anchor_record"),
            "moments_record": self.moments_record or (self._recorded or {}).get("moments_record"),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Go on from a checkpoint, before or after :meth:`attach`; a collective call.

        With ``anchor=None``, either attach to the model that the training began with, and load the
        checkpoint's weights and this after it; or load this before, and \theta_o is read from ``output_dir``.

        Raises:
            ConfigError: it is no such state, or \theta_o is not the one that the training began with.
        """
        if missing := sorted(_STATE - set(state)):
            problem = f"{', '.join(missing)} missing in what SFA.state_dict() returned"
            raise ConfigError("state_dict", problem, nearest(missing[0], state))
        if state["patterns"] != self._patterns():
            told = ", ".join(f"{key}={value!r}" for key, value in state["patterns"].items())
            raise ConfigError("include", "other parameters than this training began with", told)
        if state["step"] > self.total_steps:
            problem = f"{self.total_steps}, but the checkpoint was written after step {state['step']}"
            raise ConfigError("total_steps", problem, "at least as many")
        if self._model is not None:
            self._check_recorded(state)
        self._recorded = dict(state)
        self._step = state["step"]
        if self._model is not None:
            self._schedule_merges(self._step, self.total_steps)
            self._last_merge = state["last_merge"]

    def _take(self, model: nn.Module, optimizer: Any) -> None:
        began = self._began()
        saves = self.output_dir is not None and self._recorded is None
        self._take_anchor(model, self.output_dir or "", rank(), began=began, saves=saves)
        try:
            self._begin_weighting(optimizer, self.output_dir or "", rank())
            if self._recorded is not None:
                self._check_recorded(self._recorded)
                self._last_merge = self._recorded["last_merge"]
        except BaseException:
            self._taker.release()
            raise

    def _began(self) -> Began | None:
        """Where the weights at the start of a training that goes on were saved; None where they were not."""
        if self._recorded is None or self.output_dir is None or self.anchor is not None:
            return None
        record = AnchorRecord(**self._recorded["anchor_record"])
        folder = start_folder(self.output_dir, record.fingerprint)
        return Began(record, None) if from_first_process(folder.is_dir) else None

    def _check_recorded(self, state: Mapping[str, Any]) -> None:
        assert self.anchor_record is not None
        right = "attach to the model that the training began with, or anchor=FOLDER or Hub id of it"
        refuse_another(AnchorRecord(**self.anchor_record), AnchorRecord(**state["anchor_record"]), right)
        self._check_moments(state["moments_record"])

    def _merge_and_log(self) -> dict[str, float]:
        record = self._merge(self._step, self.seed)
        if self.log is not None and rank() == 0:
            self.log(record, self._step)
        return record


_STATE = {"step", "last_merge", "patterns", "anchor_record", "moments_record"}
