"""Which tensors become what: every name and shape is checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from sfa_hf.checkpoints.folder import SavedModel
from sfa_hf.checkpoints.recipe import Recipe
from sfa_hf.checkpoints.vocabulary import differ_by_vocabulary
from sfa_hf.errors import ConfigError
from sfa_hf.files.safetensors_slices import FLOATS, Stored, same_values
from sfa_hf.rules import BLOCK, Block, MergeRule

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Job:
    """One tensor of the output.

    Attributes:
        name: of the tensor.
        reference: the tensor that it is like: what is copied is copied from here.
        rule: how it is merged; None copies it.
        models: its tensors in the models, where it is merged.
        base: its tensor in the base, where there is one.
        importances: its F, one per model, where the rule weights by them.
        shape: of the output.
        dtype: of the output, as safetensors calls it.
        arithmetic: dtype of the blocks.
    """

    name: str
    reference: Stored
    rule: MergeRule | None
    models: tuple[Stored, ...]
    base: Stored | None
    importances: tuple[Stored, ...]
    shape: tuple[int, ...]
    dtype: str
    arithmetic: torch.dtype

    @property
    def numel(self) -> int:
        """Entries of the output."""
        return prod(self.shape)

    @property
    def merged(self) -> int:
        """Entries that are merged: those that all have, the first ones. The rest is copied."""
        inputs = (*self.models, *filter(None, [self.base]))
        return min((self.numel, *(each.numel for each in inputs))) if self.rule else 0

    def blocks(self) -> Iterator[Block]:
        """Read the entries that are merged."""
        for first in range(0, self.merged, BLOCK):
            yield self._block(first, min(first + BLOCK, self.merged))

    def _block(self, first: int, last: int) -> Block:
        def read(stored: Stored) -> torch.Tensor:
            return stored.read(first, last).to(self.arithmetic)

        return Block(
            self.name,
            first,
            [read(each) for each in self.models],
            None if self.base is None else read(self.base),
            [read(each) for each in self.importances],
        )


class Plan:
    """The jobs of a recipe over opened models.

    Args:
        recipe: what to do.
        models: the models.
        base: the base, where the recipe names one.
        reference: the one of them whose names, dtypes, config and tokenizer the output has.
        tied: finds a model's tied names; asked only where names differ.

    Raises:
        ConfigError: by model and tensor, what does not fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Sequence[SavedModel],
        base: SavedModel | None,
        reference: SavedModel,
        tied: Callable[[SavedModel], dict[str, str]],
    ) -> None:
        self._recipe, self._models, self._base, self._reference = recipe, models, base, reference
        self._inputs = [*filter(None, [base]), *models]
        self._tied_names: dict[str, dict[str, str]] = {}
        self._find_tied = tied
        self._check_kinds()
        self._refuse_unknown()
        jobs = [self._job(name, stored) for name, stored in reference.tensors.items()]
        self.jobs = _one_arithmetic(jobs) if recipe.rule.scope == "vector" else jobs
        if not any(job.rule for job in self.jobs):
            raise ConfigError(
                "parameters", "leave nothing to merge", "patterns that do not copy every tensor"
            )

    @property
    def rows(self) -> int | None:
        """The output's vocabulary, where it is not the reference's."""
        changed = [job.shape[0] for job in self.jobs if job.shape != job.reference.shape]
        return changed[0] if changed else None

    def _check_kinds(self) -> None:
        kind = self._reference.config.get("model_type")
        for model in self._inputs:
            if (other := model.config.get("model_type")) != kind:
                problem = f"{model.source} is a {other}, {self._reference.source} a {kind}"
                raise ConfigError(model.key, problem, "models of one architecture")

    def _refuse_unknown(self) -> None:
        for model in self._inputs:
            for name in sorted(model.tensors.keys() - self._reference.tensors.keys()):
                left_out = self._recipe.missing == "copy" or self._recipe.rule_for(name) is None
                if left_out:
                    continue
                shared = self._tied(self._reference).get(name)
                if shared not in self._reference.tensors:
                    raise self._lacks(self._reference, name, model)
                if not same_values(model.tensors[name], model.tensors.get(shared)):
                    tied = f"{self._reference.source} ties it to {shared}"
                    problem = f"{model.source} has a {name} of its own, {tied}"
                    raise ConfigError(model.key, problem, f"config_from: {model.source}")

    def _job(self, name: str, reference: Stored) -> Job:
        rule = self._recipe.rule_for(name)
        if rule is None:
            return self._copy(name, reference, self._copied_shape(name, reference))
        tensors = [self._find(model, name) for model in self._inputs]
        if any(tensor is None for tensor in tensors):
            return self._copy(name, reference, reference.shape)
        found = [tensor for tensor in tensors if tensor is not None]
        if any(tensor.dtype not in FLOATS for tensor in found):
            self._check_equal(name, found)
            return self._copy(name, reference, reference.shape)
        dtype = _NAMES[self._recipe.dtype] if self._recipe.dtype else reference.dtype
        return Job(
            name,
            reference,
            rule,
            tuple(found[len(found) - len(self._models) :]),
            found[0] if self._base is not None else None,
            tuple(self._importances(name)) if rule.needs_importances else (),
            self._shape(name, found, reference),
            dtype,
            # fp32 where it is wide enough for one rounding to decide, fp64 where anything has 32 bits itself
            torch.float64 if {"F32", "F64"} & {dtype, *(each.dtype for each in found)} else torch.float32,
        )

    def _copied_shape(self, name: str, reference: Stored) -> tuple[int, ...]:
        """A tensor that is copied keeps its shape, but for rows of a vocabulary that others lack."""
        found = [model.tensors.get(name, reference) for model in self._inputs]
        if self._recipe.vocabulary == "common" and differ_by_vocabulary(self._inputs, found):
            return (min(tensor.shape[0] for tensor in found), *reference.shape[1:])
        return reference.shape

    def _copy(self, name: str, stored: Stored, shape: tuple[int, ...]) -> Job:
        wanted = self._recipe.dtype if stored.dtype in FLOATS else None
        dtype = _NAMES[wanted] if wanted else stored.dtype
        return Job(name, stored, None, (), None, (), shape, dtype, torch.float64)

    def _find(self, model: SavedModel, name: str) -> Stored | None:
        if name in model.tensors:
            return model.tensors[name]
        alias = self._tied(model).get(name)
        if alias in model.tensors:
            return model.tensors[alias]
        if self._recipe.missing == "copy":
            return None
        raise self._lacks(model, name, self._reference)

    def _lacks(self, model: SavedModel, name: str, other: SavedModel) -> ConfigError:
        problem = f"{model.source} has no tensor {name}, which {other.source} has"
        return ConfigError(model.key, problem, "models of one architecture, or missing: copy")

    def _tied(self, model: SavedModel) -> dict[str, str]:
        if model.key not in self._tied_names:
            self._tied_names[model.key] = self._find_tied(model)
        return self._tied_names[model.key]

    def _check_equal(self, name: str, found: Sequence[Stored]) -> None:
        first = found[0].read_bytes(0, found[0].nbytes)
        for model, tensor in zip(self._inputs[1:], found[1:], strict=True):
            if not torch.equal(first, tensor.read_bytes(0, tensor.nbytes)):
                problem = f"{model.source} has other values in {name} ({tensor.dtype}), which are no floats"
                raise ConfigError(model.key, problem, f"parameters: [{{match: {name}, copy: true}}]")

    def _shape(self, name: str, found: Sequence[Stored], reference: Stored) -> tuple[int, ...]:
        shapes = {tensor.shape for tensor in found}
        if len(shapes) == 1:
            return reference.shape
        vocabulary = differ_by_vocabulary(self._inputs, found)
        if vocabulary and self._recipe.vocabulary != "same":
            rows = min(shape[0] for shape in shapes)
            return (rows, *reference.shape[1:]) if self._recipe.vocabulary == "common" else reference.shape
        odd = next(i for i, tensor in enumerate(found) if tensor.shape != reference.shape)
        problem = (
            f"{self._inputs[odd].source} has {name} of shape {list(found[odd].shape)}, "
            f"{self._reference.source} {list(reference.shape)}"
        )
        options = "vocabulary: common (the first rows that all have) or base (all rows of the base)"
        right = f"one vocabulary, or {options}" if vocabulary else "models of one size"
        raise ConfigError(self._inputs[odd].key, problem, right)

    def _importances(self, name: str) -> Iterator[Stored]:
        for model in self._models:
            assert model.importances is not None
            own = self._find(model, name)
            alias = name if name in model.tensors else self._tied(model)[name]
            stored = model.importances.get(name) or model.importances.get(alias)
            if stored is None:
                raise ConfigError(f"{model.key}.fisher", f"has no tensor {name}", "one for every parameter")
            if own is None or stored.shape != own.shape or stored.dtype not in FLOATS:
                problem = f"has {name} as {stored.dtype} of shape {list(stored.shape)}"
                raise ConfigError(f"{model.key}.fisher", problem, "floats of the parameter's shape")
            yield stored


def _one_arithmetic(jobs: list[Job]) -> list[Job]:
    """A threshold over all tensors compares their magnitudes in one dtype."""
    merged = [job for job in jobs if job.rule]
    widest = max((job.arithmetic for job in merged), key=lambda dtype: dtype.itemsize, default=torch.float32)
    return [replace(job, arithmetic=widest) for job in jobs]
