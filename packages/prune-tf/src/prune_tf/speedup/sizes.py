"""Sizes that a layer's Python writes into a shape, and where it has them from.

    def call(self, x):
        length = ops.shape(x)[1]
        return ops.reshape(x, (-1, length, self.num_heads, self.head_dim))

If heads go, `num_heads` has to become smaller as well. While a layer is followed, its whole numbers
and the sizes of its tensors are given out as `Size`, which is an `int` that remembers where it is
from. So a reshape shows which attribute says how many there are, and which of its numbers follow by
themselves, also where several are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["Size", "Source", "remembered", "source_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number is from: an attribute of a layer, or an axis of a tensor."""

    owner: Any
    place: str | int

    @property
    def value(self) -> int | None:
        """The number, if it is that of an attribute."""
        return getattr(self.owner, self.place, None) if isinstance(self.place, str) else None


class Size(int):
    """A whole number that was read somewhere, or the product of several."""

    sources: tuple[Source, ...]
    dtype = int
    """By which Keras tells what comes out where it meets a tensor; a subclass of int it refuses."""

    @classmethod
    def read(cls, owner: Any, place: str | int, value: int) -> Size:
        """Return the value of an attribute, or the size of an axis, counted from the end."""
        return cls._of(value, (Source(owner, place),))

    @classmethod
    def _of(cls, value: int, sources: tuple[Source, ...]) -> Size:
        made = cls(value)
        made.sources = sources
        return made

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return int(self) * other
        sources = other.sources if isinstance(other, Size) else ()
        return self._of(int(self) * int(other), (*self.sources, *sources))

    __rmul__ = __mul__


def source_of(number: Any) -> Source | None:
    """Return the one attribute that a number is the value of, if it is."""
    if not isinstance(number, Size) or len(number.sources) != 1:
        return None
    [source] = number.sources
    return source if source.value == number else None


@contextmanager
def remembered() -> Iterator[None]:
    """Have symbolic tensors give out their sizes as `Size`."""
    known = keras.KerasTensor.shape

    def read(tensor: Any) -> tuple[Any, ...]:
        shape = known.fget(tensor)
        return tuple(
            Size.read(tensor, at - len(shape), size) if type(size) is int else size
            for at, size in enumerate(shape)
        )

    keras.KerasTensor.shape = property(read, known.fset)
    try:
        yield
    finally:
        keras.KerasTensor.shape = known
