"""Going through the data, once or again and again, and when to stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count, islice
from time import monotonic
from typing import Any

from torch import Tensor

from prune_core.errors import ConfigError, shown

__all__ = ["Limits", "as_batches", "check_limits", "opened"]

JUDGED = 4
"""On how many batches the loss is measured before and after."""


class Limits:
    """When to stop, and how far things are.

    Attributes:
        total: How many steps there will be, if that is known.
    """

    def __init__(
        self, steps: int | None, epochs: int | None, seconds: float | None, size: int | None
    ) -> None:
        none = steps is None and epochs is None and seconds is None
        self.steps, self.seconds = steps, seconds
        self.epochs = 1 if none else epochs
        in_epochs = None if size is None or self.epochs is None else self.epochs * size
        known = [number for number in (steps, in_epochs) if number is not None]
        self.total = min(known, default=None) if seconds is None else None
        self._began = monotonic()

    def gone(self, steps: int, epochs: float) -> float:
        """Return which share of the training is over, 1 at its end."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(steps / self.steps)
        if self.epochs is not None:
            shares.append(epochs / self.epochs)
        if self.seconds is not None:
            shares.append((monotonic() - self._began) / self.seconds)
        return max(shares)


def opened(data: Any) -> tuple[list[Any], Iterator[Iterator[tuple[float, Any]]], int | None]:
    """Return the first batches, rounds through all, and how many a round has, if that is known.

    With each batch comes how many rounds are over.
    """
    begun = _begun(data, "data")
    first = list(islice(begun, JUDGED))
    if not first:
        raise ConfigError("data is empty: there is nothing to train with.")
    size = len(data) if hasattr(data, "__len__") else None

    def rounds() -> Iterator[Iterator[tuple[float, Any]]]:
        if begun is data:  # an iterator, which cannot be gone through again
            yield ((0.0, batch) for batch in chain(first, begun))
            return
        for number in count():
            yield (
                (number + (at / size if size else 0), batch) for at, batch in enumerate(_some(data))
            )

    return first, rounds(), size


def as_batches(data: Any, name: str) -> list[Any]:
    """Return all batches of what has an end."""
    batches = [*_begun(data, name)]
    if not batches:
        raise ConfigError(f"{name} is empty: there is nothing to judge by.")
    return batches


def _begun(data: Any, name: str) -> Iterator[Any]:
    """Begin with batches, or say why that is none."""
    try:
        begun: Iterator[Any] = iter(data)
    except TypeError:
        raise ConfigError(
            f"{name} is a {type(data).__name__}; it must hold batches, as a list does."
        ) from None
    if isinstance(data, Tensor | Mapping | str):
        raise ConfigError(
            f"{name} is a {type(data).__name__}, one batch; put it into a list: {name}=[batch]."
        )
    return begun


def _some(data: Iterable[Any]) -> Iterator[Any]:
    empty = True
    for batch in data:
        empty = False
        yield batch
    if empty:
        raise ConfigError("data is empty when it is gone through again. Give a list.")


def check_limits(steps: int | None, epochs: int | None, seconds: float | None) -> None:
    """Refuse limits that are no positive numbers."""
    for name, value in (("steps", steps), ("epochs", epochs), ("seconds", seconds)):
        kinds = (int, float) if name == "seconds" else (int,)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise ConfigError(f"{name} is {shown(value)}; it must be a number.")
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {shown(value)}; it must be more than 0.")
