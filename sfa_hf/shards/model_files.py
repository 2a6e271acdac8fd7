r"""Reading \theta_o from safetensors: each rank only the entries that it owns."""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from transformers import PreTrainedModel

from sfa_hf.distributed.processes import rank
from sfa_hf.engines.base import Shard
from sfa_hf.errors import ConfigError
from sfa_hf.files.hub import from_hub
from sfa_hf.files.safetensors_slices import Stored, open_tensors
from sfa_hf.files.weight_files import INDEX, WEIGHTS, index_parts, weight_files
from sfa_hf.shards.converted import Named, in_memory

_logger = logging.getLogger(__name__)

_SAME_MODEL = "a checkpoint of the same model"


class AnchorFiles:
    """The tensors of a saved model, found by the model's parameter names.

    Names match as in ``from_pretrained``: after the renamings and conversions of the model's class, under any
    name of a tied parameter, and with or without the base model's prefix. Where another module holds the
    transformers model, as in sentence-transformers, they are the names inside of that. Tensors of parts that
    the model does not have, such as another head, are left over with a warning.

    Args:
        source: a local folder, or a Hub id.
        model: the model in training.
        names: where parameters have other names in files than in memory: theirs in files.
        without: names of parameters that are not in the files.

    Attributes:
        revision: the commit that a Hub id stood for; None for a folder.

    Raises:
        ConfigError: no safetensors there, or a tensor that the model lacks.
    """

    def __init__(
        self,
        source: str,
        model: nn.Module,
        names: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        path, inner = _transformers_model(model)
        self._names, self._path = names or {}, f"{path}." if path else ""
        self._source = source
        self.revision: str | None = None
        self._open = ExitStack()
        weakref.finalize(self, self._open.close)
        self._stored = dict(in_memory(self._tensors(source), inner))
        self._aliases = {name: same for name, same in _aliases(model).items() if name not in without}
        self._prefix = getattr(inner, "base_model_prefix", "")
        self._refuse_extra(model, inner)

    def check(self, shards: Sequence[Shard]) -> None:
        """Check that every shard's tensor is there, with the parameter's shape.

        Raises:
            ConfigError: names the tensor, and both shapes.
        """
        for shard in shards:
            shape = list(self._find(shard.name).tensor.shape)
            if shape != list(shard.shape):
                problem = f"{self._source} has {shard.name} of shape {shape}, the model {list(shard.shape)}"
                raise ConfigError("anchor", problem, _SAME_MODEL)

    def stored_name(self, name: str) -> str:
        """The name that a parameter of the model has in the files.

        Raises:
            ConfigError: the files hold it in another form, such as experts apart that are used fused.
        """
        found = self._find(name)
        if not isinstance(found.tensor, Stored):
            problem = f"{self._source} stores {name} in another form than the model has in memory"
            raise ConfigError("anchor", problem, "a model whose tensors load as they are stored")
        return found.key

    def renames(self, name: str) -> bool:
        """Whether a parameter has another name in the files than in the model."""
        return self._find(name).key not in self._aliases[name]

    def read(self, shard: Shard) -> Tensor:
        """Read one shard's values, and nothing beside them."""
        return self._find(shard.name).tensor.read(shard.offset, shard.offset + shard.data.numel())

    def _find(self, name: str) -> Named:
        for alias in self._aliases[name]:
            for spelling in self._spellings(alias):
                if spelling in self._stored:
                    return self._stored[spelling]
        raise ConfigError("anchor", f"{self._source} has no tensor {name}", _SAME_MODEL)

    def _spellings(self, name: str) -> Iterator[str]:
        name = self._names.get(name, name)
        yield name
        name = name.removeprefix(self._path)
        yield name
        if self._prefix:
            yield name.removeprefix(f"{self._prefix}.")
            yield f"{self._prefix}.{name}"

    def _tensors(self, source: str) -> Iterator[tuple[str, Stored]]:
        paths = _locate(source)
        if not Path(source).expanduser().is_dir():
            # The cache keeps each commit's files in a folder of its name.
            self.revision = paths[0].parent.name
        for path in paths:
            for key, tensor in open_tensors(path, "anchor", self._open):
                # Or the system would read ahead of a slice, which is to read the other ranks' too.
                os.posix_fadvise(tensor.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                yield key, tensor

    def _refuse_extra(self, model: nn.Module, inner: nn.Module) -> None:
        """Refuse tensors that the model lacks in the parts that it has; name those of other parts."""
        known = {*self._aliases, *(name for name, _ in model.named_buffers(remove_duplicate=False))}
        spelled = {spelling for name in known for spelling in self._spellings(name)}
        ignored = getattr(inner, "_keys_to_ignore_on_load_unexpected", None) or ()
        extra = sorted(self._stored.keys() - spelled)
        extra = [name for name in extra if not any(re.search(pattern, name) for pattern in ignored)]
        parts = {spelling.partition(".")[0] for spelling in spelled}
        for name in extra:
            if name.partition(".")[0] in parts:
                shape = list(self._stored[name].tensor.shape)
                problem = f"{self._source} has a tensor {name} of shape {shape}, which the model lacks"
                raise ConfigError("anchor", problem, _SAME_MODEL)
        if extra and rank() == 0:
            shown = ", ".join(extra[:3]) + (" ..." if len(extra) > 3 else "")
            _logger.warning(
                "%s: %d tensors of parts that the model does not have are left over: %s",
                self._source,
                len(extra),
                shown,
            )


def _transformers_model(model: nn.Module) -> tuple[str, nn.Module]:
    """The outermost transformers model in a model, with its name there; the model itself without one."""
    named = model.named_modules()
    return next(((name, each) for name, each in named if isinstance(each, PreTrainedModel)), ("", model))


def _aliases(model: nn.Module) -> dict[str, list[str]]:
    """Give for each parameter name all names of the same (tied) parameter, itself first."""
    names = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return {name: [name, *same] for same in names.values() for name in same}


def _locate(source: str) -> list[Path]:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return weight_files(folder, "anchor")
    if folder.exists() or source.startswith((".", "/", "~")):
        raise ConfigError("anchor", f"{source} is not a folder", "a folder of a saved model, or a Hub id")
    with from_hub("anchor", f"the anchor {source}"):
        try:
            return [Path(huggingface_hub.hf_hub_download(source, WEIGHTS))]
        except EntryNotFoundError:
            index = Path(huggingface_hub.hf_hub_download(source, INDEX))
        parts = index_parts(index, "anchor")
        return [Path(huggingface_hub.hf_hub_download(source, name)) for name in parts]
