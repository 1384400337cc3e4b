"""The number that a user's evaluation comes to."""

from __future__ import annotations

from numbers import Real
from typing import Any

__all__ = ["number_from"]


def number_from(returned: Any) -> float:
    """Return the number that an evaluation returned, also one in a tensor or an array.

    Raises:
        TypeError: When it is something else: nothing, a text, a truth value, several numbers.

    Example:
        >>> number_from(1)
        1.0
        >>> number_from(None)
        Traceback (most recent call last):
            ...
        TypeError: evaluate returned None instead of a number; does it lack a `return`?
    """
    value = returned
    item = getattr(returned, "item", None)
    if callable(item):
        try:
            value = item()
        except (RuntimeError, TypeError, ValueError):  # several numbers, or not that kind of item
            text = f"a {type(returned).__name__} of shape {tuple(getattr(returned, 'shape', ()))}"
            raise TypeError(f"evaluate returned {text} instead of a number") from None
    if value is None:
        raise TypeError("evaluate returned None instead of a number; does it lack a `return`?")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"evaluate returned {value!r} instead of a number")
    return float(value)
