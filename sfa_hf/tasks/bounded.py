"""Which templates cannot grow: their text is bounded by their source and their columns."""

from __future__ import annotations

from jinja2 import nodes

_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.If, nodes.CondExpr),
    *(nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.List, nodes.Tuple, nodes.Add, nodes.Sub, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.Not, nodes.And, nodes.Or, nodes.Neg, nodes.Test),
)
_FILTERS = {
    "trim",
    "lower",
    "upper",
    "string",
    "int",
    "float",
    "length",
    "count",
    "first",
    "last",
    "default",
    "d",
}
_METHODS = {"strip", "lstrip", "rstrip", "lower", "upper", "split", "rsplit", "splitlines"} | {
    "startswith",
    "endswith",
}


def is_bounded(tree: nodes.Template) -> bool:
    """Whether a template has no loop, no variable of its own, and only operations whose results stay small.

    Two such joins or growing replacements, one after the other, multiply; so one join is the most.
    """
    joins = sum(each.name == "join" for each in tree.find_all(nodes.Filter))
    return joins <= 1 and _is_bounded(tree)


def _is_bounded(node: nodes.Node) -> bool:
    return _is_small(node) and all(map(_is_bounded, node.iter_child_nodes()))


def _is_small(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS or node.name == "join" or _shortens(node)
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Getattr) and node.node.attr in _METHODS
    return type(node) in _NODES


def _shortens(node: nodes.Filter) -> bool:
    """``replace`` by a constant that is not longer."""
    texts = [each.value for each in node.args if isinstance(each, nodes.Const)]
    if node.name != "replace" or len(texts) != len(node.args) or node.kwargs or not texts:
        return False
    old, new = texts[0], texts[-1]
    return isinstance(old, str) and isinstance(new, str) and 0 < len(old) >= len(new) and len(texts) == 2
