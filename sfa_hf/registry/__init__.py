"""Plug-ins: one file in a folder is all that it takes to add one."""

from sfa_hf.registry.plugins import named_classes, plugins

__all__ = ["named_classes", "plugins"]
