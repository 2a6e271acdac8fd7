"""The one reader of YAML: files that a user wrote, and the values of ``key=value`` arguments.

Numbers, booleans and text are told apart as YAML 1.2's core schema does
(https://yaml.org/spec/1.2.2/#103-core-schema), not as YAML 1.1: ``1e-4`` is a number; ``010``, ``1:30``,
``yes``, ``off`` and ``2024-01-02`` are text. Duplicate keys are refused. PyYAML's SafeLoader with other
resolvers does this in a page. ruamel.yaml would still read dates, and has no bounds on depth or on what
aliases expand to.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import CollectionNode, MappingNode, Node

from sfa_hf.errors import ConfigError

_EXAMPLES = "the shipped configs are examples: sfa-hf doctor says where they are"
_MOST_BYTES = 2**20
_MOST_DEPTH = 50
_MOST_NODES = 10_000
"""With what aliases stand for; the largest shipped config has about 200. A second's reading."""

_TAG = "tag:yaml.org,2002:"
# Narrower than the core schema in one point: no needless zero in front of a number, so that 010 is not 10.
_WHOLE = r"(?:0|[1-9][0-9]*)"
_PLAIN = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"[-+]?{_WHOLE}|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(?:\.[0-9]+|{_WHOLE}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node, within the bounds on depth and size."""
        event: Any = self.peek_event()
        before = self._nodes
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors:
            if event.anchor not in self._sizes:
                raise _refusal(f"*{event.anchor} is part of itself", event.start_mark)
            self._nodes += self._sizes[event.anchor]
        self._nodes += 1
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise _too_deep(event.start_mark)
        if self._nodes > _MOST_NODES:
            raise _refusal(f"it holds more than {_MOST_NODES} values", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if getattr(event, "anchor", None) is not None:
            self._sizes.setdefault(event.anchor, self._nodes - before)
        return node

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Refuse depth at the opening bracket: the scanner looks far ahead, in quadratic time."""
        if self.flow_level > _MOST_DEPTH:
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(kind)

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping whose keys are text, each there once."""
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, CollectionNode) or key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                told = "a list or a mapping" if isinstance(key, CollectionNode) else key.value
                problem = f"the key {told} is not text; put it in quotes"
                raise _refusal(problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value} is there twice, in lines {seen[key.value]} and {line}"
                raise _refusal(problem, key.start_mark)
            seen[key.value] = line
        return node

    def construct_number(self, node: Any) -> int | float:
        """The number that the text says."""
        text = self.construct_scalar(node)
        try:
            if node.tag == f"{_TAG}float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        except ValueError as error:
            raise _refusal(f"{text:.20} is not a number", node.start_mark) from error


def _refusal(problem: str, mark: Any) -> ConstructorError:
    return ConstructorError(None, None, problem, mark)


def _too_deep(mark: Any) -> ConstructorError:
    return _refusal(f"it is more than {_MOST_DEPTH} levels deep", mark)


class _Writer(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text, or would read as the end of a line."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Text; PyYAML would lose what are line ends to it alone."""
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar(f"{_TAG}str", text, style=style)


for _name, _pattern, _first in _PLAIN:
    _resolver = f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z")
    _Reader.add_implicit_resolver(*_resolver, _first)
    _Writer.add_implicit_resolver(*_resolver, _first)
for _name in ("null", "bool", "str", "seq", "map"):
    _Reader.add_constructor(f"{_TAG}{_name}", yaml.SafeLoader.yaml_constructors[f"{_TAG}{_name}"])
for _name in ("int", "float"):
    _Reader.add_constructor(f"{_TAG}{_name}", _Reader.construct_number)
_Writer.add_representer(str, _Writer.represent_text)
_Reader.add_constructor(None, yaml.SafeLoader.yaml_constructors[None])


def read_yaml(file: Path, examples: str = _EXAMPLES) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        file: a regular file of at most 1 MiB.
        examples: where to see how such a file looks, for the error.

    Raises:
        ConfigError: there is none; its text names the file, and the line where there is one.
    """
    values = _value(str(file), _text(file), examples)
    if not isinstance(values, dict):
        raise ConfigError(str(file), "holds no keys", examples)
    return values


def yaml_value(key: str, text: str) -> Any:
    """The value that ``text`` stands for in ``key=text``.

    Raises:
        ConfigError: it is not YAML.
    """
    return _value(key, text, "e.g. 0.25, true, [math, law]")


def yaml_text(values: Any) -> str:
    """YAML that :func:`read_yaml`, and readers of YAML 1.1, read back as ``values``."""
    return yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True)


def _value(key: str, text: str, right: str) -> Any:
    try:
        return yaml.load(text, Loader=_Reader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ConfigError(key, f"is not valid YAML{where}: {error.problem}", right) from error
    except yaml.YAMLError as error:
        raise ConfigError(key, f"is not valid YAML: {error}", right) from error


def _text(file: Path) -> str:
    """A file's text; never waits for one that is no file, such as a pipe."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
            regular = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            content = opened.read(_MOST_BYTES + 1) if regular else b""
    except OSError as error:
        raise ConfigError(str(file), "cannot be read", error.strerror or "a YAML file") from error
    except ValueError as error:
        raise ConfigError(repr(str(file)), "cannot be read", "a name without NUL characters") from error
    if not regular:
        raise ConfigError(str(file), "is not a regular file", "a YAML file")
    if len(content) > _MOST_BYTES:
        raise ConfigError(str(file), f"has more than {_MOST_BYTES} bytes", "a config of at most 1 MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), "is not valid YAML: it is not UTF-8", _EXAMPLES) from error
