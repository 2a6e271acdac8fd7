"""Plug-ins: one file in a folder is all that it takes to add one."""

from sfa_hf.registry.plugins import classes, plugins

__all__ = ["classes", "plugins"]
