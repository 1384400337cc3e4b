"""Sizes that a layer's Python writes into a shape, and where it has them from.

    def call(self, x):
        return ops.reshape(x, (-1, self.length, self.num_heads, self.head_dim))

If heads go, `num_heads` has to become smaller as well. While a layer is followed, its whole numbers
are given out as `Size`, which is an `int` that remembers its attribute. So a reshape shows which
attribute says how many there are, also where two of them are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Size", "Source", "source_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """An attribute of a layer."""

    layer: Any
    name: str


class Size(int):
    """A whole number that was read from attributes of a layer: one, or several multiplied."""

    sources: tuple[Source, ...]

    @classmethod
    def read(cls, layer: Any, name: str, value: int) -> Size:
        """Return the value of an attribute."""
        return cls._of(value, (Source(layer, name),))

    @classmethod
    def _of(cls, value: int, sources: tuple[Source, ...]) -> Size:
        made = cls(value)
        made.sources = sources
        return made

    def __mul__(self, other: Any) -> Any:
        product = int(self) * other
        if type(product) is not int:
            return product
        return self._of(product, (*self.sources, *getattr(other, "sources", ())))

    __rmul__ = __mul__


def source_of(number: Any) -> Source | None:
    """Return the one attribute that a number is the value of, if it is."""
    if not isinstance(number, Size) or len(number.sources) != 1:
        return None
    [source] = number.sources
    return source if getattr(source.layer, source.name, None) == number else None
