r"""A linearised model on disk: \theta as any model is saved, and a file that says where \theta_0 is."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sfa_hf.errors import ConfigError, known_as
from sfa_hf.files.atomic import read_json, write_json
from sfa_hf.linearised.theta_0 import digest
from sfa_hf.models import load_model

FILE = "linearised.json"
"""File beside the weights: marks them as those of a linearised model and says where \\theta_0 is."""
ADAPTER_THETA_0 = "theta_0.safetensors"
"""File beside adapters: their \\theta_0, which is stored nowhere else (a new adapter is random)."""
_RIGHT = "the folder of a saved linearised model"


@dataclass(frozen=True)
class Origin:
    r"""Where \theta_0 is.

    Attributes:
        base: folder or Hub id; None if unknown.
        dtype: dtype that it was read in.
        fingerprint: hash of its values in that dtype.
    """

    base: str | None = None
    dtype: str | None = None
    fingerprint: str | None = field(default=None, repr=False)

    @classmethod
    def of_now(cls, model: PreTrainedModel) -> Origin:
        """Return the origin of a model that has not changed since it was loaded."""
        return cls._of(model.name_or_path or None, model)

    @classmethod
    def _of(cls, base: str | None, model: nn.Module) -> Origin:
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        if base is not None and Path(base).is_dir():
            base = str(Path(base).resolve())
        return cls(base, dtype, digest(model.named_parameters()))


class RemembersTheta0:
    """Saves a linearised model with the place of its theta_0."""

    origin: Origin

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> Any:
        r"""Save as the model's class does, and write where \theta_0 is."""
        saved = super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_main_process", True):
            note(self, Path(save_directory))
        return saved


def note(model: Any, folder: Path) -> None:
    r"""Write :data:`FILE`, and for a PEFT model the \theta_0 of its adapters."""
    if hasattr(model, "peft_config"):
        tensors = model.get_base_model().theta_0.tensors
        save_file({name: each.cpu().contiguous() for name, each in tensors.items()}, folder / ADAPTER_THETA_0)
        write_json(folder / FILE, {"theta_0": ADAPTER_THETA_0})
        return
    origin: Origin = model.origin
    write_json(
        folder / FILE,
        {"theta_0": origin.base, "dtype": origin.dtype, "fingerprint": origin.fingerprint},
    )


def read_base(base: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], Origin]:
    r"""\theta_0 of a folder or Hub id, by the names of its parameters."""
    with known_as("base"):
        model, _ = load_model(base, str(dtype).removeprefix("torch."))
    return {name: each.detach() for name, each in model.named_parameters()}, Origin._of(base, model)


def adapter_theta_0(model: Any, folder: str) -> dict[str, Tensor]:
    r"""Return \theta_0 of a PEFT model: adapters from a folder, other parameters as they are now.

    PEFT maps the names in the file to those of the model. The adapters of the model are restored afterwards.
    """
    from peft import load_peft_weights, set_peft_model_state_dict  # noqa: PLC0415 - an optional extra

    plain = model.get_base_model()
    if not (Path(folder) / "adapter_model.safetensors").is_file():
        raise ConfigError("base", f"{folder} has no adapter_model.safetensors", "a folder of this adapter")
    own = {name: p.detach().clone() for name, p in plain.named_parameters() if p.requires_grad}
    set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))
    found = {name: p.detach().clone() for name, p in plain.named_parameters() if name in own}
    with torch.no_grad():
        for name, tensor in own.items():
            plain.get_parameter(name).copy_(tensor)
    return {**dict(plain.named_parameters()), **found}


def load_linearised(
    folder: str, dtype: str = "float32", *, base: str | None = None, **kwargs: Any
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    r"""Load a saved linearised model and linearise it again.

    ``from_pretrained`` loads the same folder as an ordinary model.

    Args:
        folder: folder that holds :data:`FILE`.
        dtype: dtype of the weights, e.g. "float32".
        base: folder or Hub id of \theta_0, if it is not where the file says.
        kwargs: other arguments of :func:`sfa_hf.linearised.linearise`.

    Returns:
        The model and its tokenizer.

    Raises:
        ConfigError: the folder is not that of a linearised model, or \theta_0 is missing or has changed.
    """
    from sfa_hf.linearised.model import linearise  # noqa: PLC0415 - which saves by this module

    if not (Path(folder) / FILE).is_file():
        raise ConfigError("linearised", f"{folder} has no {FILE}", _RIGHT)
    told = read_json(Path(folder) / FILE, _RIGHT)
    if told.get("theta_0") == ADAPTER_THETA_0:
        model, tokenizer = _load_adapter(folder, dtype)
        return linearise(model, theta_0=load_file(Path(folder) / ADAPTER_THETA_0), **kwargs), tokenizer
    where = base or told.get("theta_0")
    if where is None:
        raise ConfigError("base", f"{Path(folder) / FILE} names no theta_0", "its folder or Hub id")
    model, tokenizer = load_model(folder, dtype)
    linearise(model, where, **kwargs)
    found: Origin = model.origin
    if found.dtype == told.get("dtype") and found.fingerprint != told.get("fingerprint"):
        right = "base=, naming the weights that the model was linearised at"
        raise ConfigError("base", f"{where} holds other weights than those of {folder}", right)
    return model, tokenizer


def _load_adapter(folder: str, dtype: str) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    from peft import AutoPeftModelForCausalLM, PeftConfig  # noqa: PLC0415 - an optional extra

    model = AutoPeftModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        is_trainable=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    has_own = any(Path(folder).glob("tokenizer*"))
    name = folder if has_own else PeftConfig.from_pretrained(folder).base_model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token or tokenizer.unk_token
    return model, tokenizer
