"""Values between judge and program: copied as plain data, never as code or as pickles.

What a program returns reaches the judge as numbers, text and the standard containers of them. An instance of
a subclass arrives as its base class, so that a class whose ``__eq__`` says yes to everything is compared as
the plain value it holds; anything else arrives as a handle, which equals nothing but itself.
"""

from __future__ import annotations

import builtins
import collections
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

CONTAINERS: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
# exact numbers: module of the standard library and class
NUMBERS = (("decimal", "Decimal"), ("fractions", "Fraction"))
_INT64 = 1 << 63
# what the standard library holds that does something when it is imported
_JOKES = {"antigravity", "this"}
_CLASSES = frozenset(each for each in vars(builtins).values() if isinstance(each, type))


def pack(value: Any, refer: Callable[[Any], Any]) -> Any:
    """``value`` as what JSON can say: a scalar, or a list whose first item is a tag.

    Args:
        value: anything.
        refer: what to say for a value that is not plain data.
    """
    if value is None or value is True or value is False:
        return value
    for kind, say in _SAID:
        if isinstance(value, kind):
            return say(value, refer)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return pack(value.item(), refer)
    return _other(value) or refer(value)


def unpack(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """The value that :func:`pack` said; ``resolve`` makes something of what its ``refer`` said."""
    if not isinstance(data, list):
        return data
    tag, *items = data
    if tag in CONTAINERS:
        return CONTAINERS[tag](unpack(item, resolve) for item in items)
    if tag == "dict":
        return {unpack(key, resolve): unpack(value, resolve) for key, value in items}
    if tag in _READERS:
        return _READERS[tag](*items)
    return resolve(data)


def _int(value: int) -> Any:
    # in hexadecimal beyond 64 bits: Python refuses to read more than 4300 decimal digits
    return int.__pos__(value) if -_INT64 <= value < _INT64 else ["int", hex(int.__pos__(value))]


def _dict(value: dict[Any, Any], refer: Callable[[Any], Any]) -> Any:
    return ["dict", *([pack(key, refer), pack(item, refer)] for key, item in value.items())]


def _container(name: str) -> Callable[..., Any]:
    return lambda value, refer: [name, *(pack(item, refer) for item in value)]


# the base class's own method makes a plain value of a subclass's instance
_SAID: tuple[tuple[Any, Callable[[Any, Callable[[Any], Any]], Any]], ...] = (
    (int, lambda value, _: _int(value)),
    (float, lambda value, _: float.__pos__(value)),
    (str, lambda value, _: str.__str__(value)),
    (complex, lambda value, _: ["complex", value.real, value.imag]),
    (bytes, lambda value, _: ["bytes", value.hex()]),
    (bytearray, lambda value, _: ["bytearray", value.hex()]),
    (range, lambda value, _: ["range", value.start, value.stop, value.step]),
    (dict, _dict),
    *((kind, _container(name)) for name, kind in CONTAINERS.items()),
)


def _other(value: Any) -> list[str] | None:
    """Modules and classes by name, exact numbers as text."""
    if isinstance(value, types.ModuleType) and value.__name__ in sys.stdlib_module_names:
        return ["module", value.__name__]
    if isinstance(value, type) and value in _CLASSES:
        return ["class", value.__name__]
    for module, name in NUMBERS:
        # a class that was never imported has no instance
        kind: Any = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            return [name, str(value)]
    return None


def _module(name: str) -> types.ModuleType:
    if name not in sys.stdlib_module_names - _JOKES:
        raise ValueError(f"{name} is not of the standard library")
    return importlib.import_module(name)


def _builtin_class(name: str) -> type:
    found = getattr(builtins, name)
    if not isinstance(found, type):
        raise TypeError(f"{name} is not a class")
    return found


def _from_text(module: str, name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return getattr(importlib.import_module(module), name)(text)  # imported only where it is needed

    return read


_READERS: dict[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "complex": complex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": range,
    "module": _module,
    "class": _builtin_class,
    **{name: _from_text(module, name) for module, name in NUMBERS},
}
