"""Merging saved models: the rules of :mod:`sfa_hf.rules` over safetensors files, streamed."""

from sfa_hf.checkpoints.merging import Merged, check_checkpoints, merge_checkpoints
from sfa_hf.checkpoints.recipe import Recipe, make_recipe, read_recipe

__all__ = ["Merged", "Recipe", "check_checkpoints", "make_recipe", "merge_checkpoints", "read_recipe"]
