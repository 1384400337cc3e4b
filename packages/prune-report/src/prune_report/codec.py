"""Dataclasses as JSON and back, read strictly: what is wrong is named by its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from math import isfinite, isnan
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from prune_core.errors import PruneError, did_you_mean, shown

__all__ = ["Indices", "ReportError", "from_plain", "to_plain"]

T = TypeVar("T")


class ReportError(PruneError, ValueError):
    """A report cannot be read, or cannot be made of what was given."""


class Indices(tuple[int, ...]):
    """Ascending numbers of channels, which JSON holds as ranges.

    >>> Indices([0, 1, 2, 7]).ranges()
    '0-2,7'
    >>> Indices.read("0-2,7")
    (0, 1, 2, 7)
    """

    __slots__ = ()

    def ranges(self) -> str:
        """Return them as text, neighbours drawn together."""
        parts: list[str] = []
        first = last = None
        for number in (*self, None):
            if first is not None and last is not None and number == last + 1:
                last = number
                continue
            if first is not None:
                parts.append(str(first) if first == last else f"{first}-{last}")
            first = last = number
        return ",".join(parts)

    @classmethod
    def read(cls, text: str) -> Indices:
        """Read what `ranges` wrote.

        Args:
            text: What `ranges` wrote.

        Raises:
            ValueError: It is nothing that `ranges` writes.
        """
        numbers: list[int] = []
        for part in text.split(",") if text else []:
            first, dash, last = part.partition("-")
            start, stop = int(first), int(last) if dash else int(first)
            if not (0 <= start <= stop < _MOST):
                raise ValueError(part)
            if numbers and start <= numbers[-1]:
                raise ValueError(part)
            numbers.extend(range(start, stop + 1))
        return cls(numbers)


_MOST = 2**24
"""More channels than any layer has; a damaged file must not fill the memory."""


def to_plain(value: Any) -> Any:
    """Return what JSON can hold; fields that are as they are by default are left out."""
    if is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in fields(value)
            if field.name == "format" or getattr(value, field.name) != _default(field)
        }
    if isinstance(value, Indices):
        return value.ranges()
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        # JSON has no such numbers.
        return "nan" if isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def from_plain(kind: type[T], plain: Any, where: str = "the report") -> T:
    """Read a value of a type from what JSON holds.

    Args:
        kind: A dataclass, or a type that a field of one may have.
        plain: What JSON holds.
        where: What to call it in errors, such as `layers[3].parameters`.

    Raises:
        ReportError: Something is missing, unknown or of another type.
    """
    value: T = _read(kind, plain, where)
    return value


def _read(kind: Any, plain: Any, where: str) -> Any:
    if kind is Any:
        return plain
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_fields(kind, plain, where)
    if kind is Indices:
        return _read_indices(plain, where)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _read_one_of(get_args(kind), plain, where)
    if origin is tuple:
        return _read_items(get_args(kind), plain, where)
    if origin in (dict, Mapping):
        _expect(isinstance(plain, dict), plain, where, "an object")
        inner = get_args(kind)[1]
        return {key: _read(inner, each, f"{where}[{key!r}]") for key, each in plain.items()}
    if kind is float:
        if plain in ("nan", "inf", "-inf"):
            return float(plain)
        _expect(type(plain) in (int, float), plain, where, "a number")
        return plain
    names = {int: "a whole number", str: "a text", bool: "true or false", NoneType: "null"}
    _expect(type(plain) is kind, plain, where, names[kind])
    return plain


def _expect(right: bool, plain: Any, where: str, what: str) -> None:
    if not right:
        raise ReportError(f"{where} is {shown(plain)}; it must be {what}.")


def _read_fields(kind: type, plain: Any, where: str) -> Any:
    _expect(isinstance(plain, dict), plain, where, "an object")
    hints, known = _hints(kind), {field.name: field for field in fields(kind)}
    for name in plain:
        if name not in known:
            raise ReportError(
                f"{where} has the key {name!r}, which a {kind.__name__} does not have."
                f"{did_you_mean(name, known)}"
            )
    for name, field in known.items():
        if name not in plain and _default(field) is MISSING:
            raise ReportError(f"{where} has no {name!r}, which every {kind.__name__} needs.")
    start = "" if where == "the report" else f"{where}."
    return kind(
        **{name: _read(hints[name], each, f"{start}{name}") for name, each in plain.items()}
    )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read_indices(plain: Any, where: str) -> Indices:
    try:
        return Indices.read(plain)
    except (ValueError, TypeError, AttributeError):
        raise ReportError(
            f'{where} is {shown(plain)}; it must be ascending ranges such as "0-3,7".'
        ) from None


def _read_one_of(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    for kind in others[:-1]:
        try:
            return _read(kind, plain, where)
        except ReportError:
            continue
    return _read(others[-1], plain, where)


def _read_items(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    _expect(isinstance(plain, list), plain, where, "a list")
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], each, f"{where}[{at}]") for at, each in enumerate(plain))
    _expect(len(plain) == len(kinds), plain, where, f"a list of {len(kinds)}")
    return tuple(
        _read(kind, each, f"{where}[{at}]")
        for at, (kind, each) in enumerate(zip(kinds, plain, strict=True))
    )
