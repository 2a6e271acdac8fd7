"""How a run's models are loaded: whole ones, and adapters on their base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from sfa_hf.adapters.new import KEY, name_base, new_adapter
from sfa_hf.adapters.options import AdapterOptions
from sfa_hf.engines.deepspeed.zero_init import join_deepspeed
from sfa_hf.errors import ConfigError
from sfa_hf.files.adapter_folder import CONFIG, base_of, is_adapter
from sfa_hf.files.atomic import read_json
from sfa_hf.methods import Stage
from sfa_hf.models import load_model
from sfa_hf.models.loading import KEY as MODEL
from sfa_hf.models.loading import load_adapted

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class Models:
    """Loads the models of one run, on the engine of the living TrainingArguments.

    Under ZeRO-3 a model is partitioned while it is read.

    Attributes:
        base: folder or Hub id that the sequence starts from; may hold an adapter.
        dtype: of the weights.
        adapters: of ``model.peft``; None where weights are trained.
    """

    base: str
    dtype: str
    adapters: AdapterOptions | None = None

    def load(self, folder: str) -> Loaded:
        """Load a model as it was saved: an adapter on the sequence's base, ready to be trained."""
        join_deepspeed()
        if not is_adapter(folder):
            return load_model(folder, self.dtype)
        base = base_of(self.base, MODEL) if is_adapter(self.base) else self.base
        model, tokenizer = load_adapted(folder, base, self.dtype, trained=self.adapters is not None)
        name_base(model)
        return model, tokenizer

    def load_to_train(self, stage: Stage, start: str) -> Loaded:
        """Load the model whose training a stage begins, with the adapter that it trains, if any.

        Args:
            stage: that will be trained.
            start: folder of the weights that it starts from: a whole model, which gets a new adapter, or an
                adapter, which is carried on, or kept.
        """
        carried = is_adapter(start) and stage.after_task != "keep"
        model, tokenizer = self.load(start)
        if self.adapters is None or carried:
            return model, tokenizer
        if is_adapter(start):
            # kept adapters are not trained: they are added to the weights in memory
            model = model.merge_and_unload(safe_merge=True)
        return new_adapter(model, self.adapters, f"{stage.seed} {stage.index}"), tokenizer

    def check(self, arguments: TrainingArguments, after_task: str | None, tasks: int) -> None:
        """Raise ConfigError where a task would start from an adapter that it cannot be trained on.

        Args:
            arguments: of any task.
            after_task: what becomes of a task's adapter.
            tasks: how many there are.
        """
        plugin = arguments.deepspeed_plugin
        kept = after_task == "keep" and (tasks > 1 or is_adapter(self.base))
        if kept and plugin is not None and plugin.zero_stage == 3:
            right = "another model.peft.after_task, or ZeRO-2"
            raise ConfigError(f"{KEY}.after_task", "is keep, and ZeRO-3 splits the base", right)
        if not is_adapter(self.base):
            return
        if self.adapters is None:
            problem = f"{self.base} is an adapter, and model.peft is not set"
            raise ConfigError(MODEL, problem, "model.peft as the adapter's, or the two merged (sfa-hf merge)")
        found = read_json(Path(self.base) / CONFIG, "an adapter's config")
        for name in ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"):
            wanted = getattr(self.adapters, name)
            if found.get(name) != wanted:
                problem = f"is {wanted}, and {self.base} has {found.get(name)}"
                raise ConfigError(f"{KEY}.{name}", problem, "that of the adapter that is trained on")
