"""A probe: each point is made, measured and written before the next."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sfa_hf.checkpoints import check_checkpoints, make_recipe, merge_checkpoints
from sfa_hf.distributed.processes import from_first_process
from sfa_hf.errors import ConfigError, known_as
from sfa_hf.evaluation import check_tasks
from sfa_hf.files.atomic import read_json, write_json
from sfa_hf.linearised import linearise
from sfa_hf.models import load_model, resolve_model
from sfa_hf.probing.measure import measure
from sfa_hf.probing.options import ProbeOptions
from sfa_hf.probing.path import Point, arguments_of, points, recipe
from sfa_hf.reports.probe import plot_probe
from sfa_hf.tasks.named import named_tasks

logger = logging.getLogger(__name__)

FILE = "probe.json"
_MADE = "point.writing"
_AGAIN = "another output_dir, or the same options to continue it"


def run_probe(a: str, b: str, options: ProbeOptions, device: torch.device) -> dict[str, Any]:
    """Measure the remaining points of a probe, and draw it.

    Call it on every process; they share the rows. Each point is written to ``output_dir/probe.json`` before
    the next one is made. The same call continues an interrupted probe.

    Args:
        a: folder or Hub id of the checkpoint at 0.
        b: folder or Hub id of the checkpoint at 1.
        options: options of the probe.
        device: device that the models compute on.

    Returns:
        The content of probe.json.

    Raises:
        ConfigError: the input is not valid, or the folder holds another probe.
    """
    return _Probe(a, b, options, device).run()


class _Probe:
    def __init__(self, a: str, b: str, options: ProbeOptions, device: torch.device) -> None:
        self.a, self.b, self.options, self.device = _resolved("A", a), _resolved("B", b), options, device
        self.beside = {name: _resolved(f"models.{name}", each) for name, each in options.models.items()}
        self.points = points(options)
        self.tasks = named_tasks(options.task, options.data.dir)
        for task in self.tasks:
            task.heldout_rows(few_shot=options.evaluation.few_shot)
        check_tasks(self.tasks, options.evaluation)
        self._check_merges()
        self.file = options.output_dir / FILE
        self.found = from_first_process(self._read)
        self.ends: dict[str, nn.Module] = {}

    def run(self) -> dict[str, Any]:
        left = [point for point in self.points if point.key not in self.found["points"]]
        if left and self.options.features:
            self.ends = {name: self._load(each)[0] for name, each in (("a", self.a), ("b", self.b))}
        for number, point in enumerate(left, 1):
            with self._folder_of(point) as folder:
                model, tokenizer = self._load(folder)
                tasks = measure(model, tokenizer, self.tasks, self.ends, self.options)
                del model
            self.found["points"][point.key] = {"curve": point.curve, "alpha": point.alpha, "tasks": tasks}
            told = (
                f"{name} loss {each['loss']:.3f} score {each['score']:.3f}" for name, each in tasks.items()
            )
            logger.info("%s (%d of %d): %s", point.key, number, len(left), ", ".join(told))
            from_first_process(lambda: write_json(self.file, self.found))
        from_first_process(lambda: plot_probe(self.found, self.options.output_dir))
        return self.found

    def _check_merges(self) -> None:
        """Check that A and B can be merged and their F can be read, before anything is measured."""
        for curve in sorted({point.curve for point in self.points if point.curve}):
            point = Point(curve, 0.5)
            with known_as(arguments_of(point)):
                check_checkpoints(make_recipe(recipe(point, self.a, self.b, self.options)))

    def _load(self, folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = load_model(folder, self.options.model.dtype)
        if self.options.model.linearised_at is not None:
            linearise(model, self.options.model.linearised_at)
        return model.to(self.device), tokenizer

    @contextmanager
    def _folder_of(self, point: Point) -> Iterator[str]:
        """Yield the folder of the point's model; a merged one is removed afterwards."""
        ready = self.beside if point.alpha is None else {"0": self.a, "1": self.b}
        place = point.name or f"{point.alpha:g}"
        if place in ready:
            yield ready[place]
            return
        folder = self.options.output_dir / _MADE
        wanted = make_recipe(recipe(point, self.a, self.b, self.options))

        def make() -> None:
            shutil.rmtree(folder, ignore_errors=True)  # of a call that was killed
            folder.parent.mkdir(parents=True, exist_ok=True)
            merge_checkpoints(wanted, folder)

        from_first_process(make)
        yield str(folder)
        from_first_process(lambda: shutil.rmtree(folder))

    def _read(self) -> dict[str, Any]:
        """Read what an earlier call with the same options has measured."""
        asked = self.options.model_dump(mode="json", exclude={"output_dir"})
        mine = {"a": self.a, "b": self.b, **asked}
        if not self.file.is_file():
            return {"schema": 1, "asked": mine, "tasks": [task.name for task in self.tasks], "points": {}}
        found = read_json(self.file, "another output_dir")
        if not isinstance(found, dict) or not isinstance(found.get("asked"), dict):
            raise ConfigError("output_dir", f"{self.file} does not hold a probe", "another output_dir")
        differing = sorted(key for key in mine if found["asked"].get(key) != mine[key])
        if differing:
            problem = f"{self.file} was made with other values of {', '.join(differing)}"
            raise ConfigError("output_dir", problem, _AGAIN)
        return found


def _resolved(key: str, name: str) -> str:
    with known_as(key):
        return resolve_model(name)
