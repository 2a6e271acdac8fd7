"""Models that a run starts from: Hub ids, local folders, and small built-in models."""

from sfa_hf.models.builtin import BUILTINS, Recipe
from sfa_hf.models.loading import load_model, model_without_values, resolve_model

__all__ = ["BUILTINS", "Recipe", "load_model", "model_without_values", "resolve_model"]
