"""Plain data, as a file holds it, checked against the types that it is meant to have.

What is read from JSON is a tree of anything. Before a part of it is used, all of it is compared
with a type: `dict[str, list[int]]`, or a dataclass of such types. So a damaged file is refused at
the place where it is damaged, and nothing that uses it has to doubt what it gets.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from prune_core.errors import shown

__all__ = ["conform", "parse_json"]

_T = TypeVar("_T")

_CALLED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


def parse_json(text: str, kind: type[_T], where: str) -> _T:
    """Read JSON of a type.

    Raises:
        ValueError: With a sentence that says where it is not of that type.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from None
    return conform(value, kind, where)


def conform(value: Any, kind: type[_T], where: str) -> _T:
    """Return a value if it is of a type, tuples and dataclasses made of what stands for them.

    Args:
        value: What JSON can hold.
        kind: `str`, `int`, `float`, `bool`, a list, a dict, a tuple, a union or a dataclass of
            such types, or `Any`. A `float` is any finite number; `True` is no `int`.
        where: How messages call the value.

    Raises:
        ValueError: Naming the place, what is there, and what should be.

    >>> conform({"a": [1, 2]}, dict[str, list[int]], "sizes")
    {'a': [1, 2]}
    >>> conform({"a": [1, "2"]}, dict[str, list[int]], "sizes")
    Traceback (most recent call last):
        ...
    ValueError: sizes['a'][1] is '2'; it must be a whole number
    """
    return cast("_T", _conform(value, kind, where))


def _conform(value: Any, kind: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(value, arguments, where)
    if is_dataclass(kind):
        return _instance(value, kind, where)
    if origin is dict and isinstance(value, dict):
        return {
            key: _conform(each, arguments[1], f"{where}[{key!r}]") for key, each in value.items()
        }
    if origin is list and isinstance(value, list):
        return [_conform(each, arguments[0], f"{where}[{at}]") for at, each in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        each = zip(value, arguments, strict=True)
        return tuple(_conform(v, kind, f"{where}[{at}]") for at, (v, kind) in enumerate(each))
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    if kind in _CALLED and type(value) is kind and kind is not float:
        return value
    raise ValueError(f"{where} is {shown(value)}; it must be {_called(kind)}")


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    for kind in kinds:
        try:
            return _conform(value, kind, where)
        except ValueError:
            continue
    wanted = " or ".join(_called(kind) for kind in kinds)
    raise ValueError(f"{where} is {shown(value)}; it must be {wanted}")


def _instance(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shown(value)}; it must be a table of names and values")
    known = {field.name for field in fields(kind)}
    if strange := [name for name in value if name not in known]:
        raise ValueError(f"{where} has {shown(strange[0])}, which nothing is known of")
    types = get_type_hints(kind)
    try:
        return kind(**{n: _conform(v, types[n], f"{where}.{n}") for n, v in value.items()})
    except TypeError as error:  # a field without a default is not there
        raise ValueError(f"{where} is not complete: {error}") from None


def _called(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _CALLED:
        return _CALLED[kind]
    if origin is list:
        return f"a list, of which each is {_called(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}"
    return "a table of names and values"
