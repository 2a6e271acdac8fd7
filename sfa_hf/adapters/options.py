"""The config's ``model.peft``: which LoRA adapters are trained, and what becomes of one after its task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sfa_hf.config.options import Choice, Flag, Fraction, whole

AFTER_TASK = ("carry", "keep", "merge", "new")

_RANK = whole(lambda r: r >= 1, "is not a rank", "a whole number from 1 on")
_ALPHA = whole(lambda alpha: alpha >= 1, "is not a scale", "a whole number from 1 on")
_OF_ONE_UPDATE = ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters")


class AdapterOptions(BaseModel):
    """LoRA adapters, trained in place of the weights. All but ``after_task`` are fields of PEFT's LoraConfig.

    Attributes:
        r: rank of the update of a weight.
        lora_alpha: the update is alpha / r times B A; as in PEFT, ``lora_alpha`` is the same key.
        target_modules: names of the layers that get adapters, a regular expression of whole names, or
            "all-linear" for all linear layers but the output head.
        exclude_modules: names, or a regular expression, of layers that get none.
        rank_pattern: other ranks, by a layer's name or a regular expression.
        alpha_pattern: other values of alpha, likewise.
        layers_to_transform: indices of the only blocks that get adapters.
        layers_pattern: name of the list of blocks, where ``layers_to_transform`` cannot find it.
        lora_dropout: rate of dropout on the input of A.
        use_rslora: scale by alpha / sqrt(r).
        use_dora: DoRA, with magnitudes of the rows.
        lora_bias: a bias beside B.
        bias: which biases of the model are trained too.
        modules_to_save: names of modules that are trained whole.
        trainable_token_indices: rows of the embedding that are trained.
        target_parameters: names of parameters that get adapters, such as those of fused experts.
        init_lora_weights: the start of A; B starts at zero. Starts that change the base, such as "pissa", are
            not for sequences.
        after_task: what becomes of a task's adapter. "carry": the next task trains it on. "merge": it is
            merged into its base, a whole model, and the next task trains a new one on that. "keep": it stays
            as it is, and the next task trains a new one beside it; a task's model is the sum of all so far.
            "new": the next task trains a new one on the first base. None for what the method needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    r: Annotated[int, _RANK] = 8
    lora_alpha: Annotated[int, _ALPHA] = Field(8, alias="alpha")
    target_modules: str | list[str] = "all-linear"
    exclude_modules: str | list[str] | None = None
    rank_pattern: dict[str, Annotated[int, _RANK]] = Field(default_factory=dict)
    alpha_pattern: dict[str, Annotated[int, _ALPHA]] = Field(default_factory=dict)
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    lora_dropout: Fraction = 0.0
    use_rslora: Flag = False
    use_dora: Flag = False
    lora_bias: Flag = False
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | None = None
    target_parameters: list[str] | None = None
    init_lora_weights: Literal[True, "gaussian"] = True
    after_task: Annotated[str, Choice(AFTER_TASK)] | None = None

    def fields(self) -> dict[str, Any]:
        """Those of LoraConfig, as it spells them."""
        return self.model_dump(exclude={"after_task"})

    @property
    def more_than_products(self) -> str | None:
        """The first option by which an update is more than s B A of each layer; None without."""
        if self.bias != "none":
            return "bias"
        return next((name for name in _OF_ONE_UPDATE if getattr(self, name)), None)
