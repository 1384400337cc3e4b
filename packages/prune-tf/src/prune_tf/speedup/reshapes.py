"""Sizes that a layer's Python makes of others, so that no attribute can say what they are.

    def call(self, x):
        batch, length, channels = ops.shape(x)
        heads = ops.reshape(self.query(x), (batch, length, self.heads, channels // self.heads))
        ...
        return self.out(ops.reshape(mixed, (batch, length, channels)))

With half of the heads the last size would have to be half of `channels`, which is the width of the
input and stays. So the reshape itself is told: the second one that this layer's `call()` makes has
half of what Python says along its last axis. While a layer is followed, its reshapes are numbered.
In the small model it runs its own `call()` as it is, and each reshape that was told makes its share
of the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from threading import Lock
from typing import Any

import keras

__all__ = ["Place", "Shares", "is_told", "number_of_reshapes", "tell", "told_call"]

Shares = Mapping[str, Mapping[str, tuple[int, int]]]
"""`{number of a reshape: {axis: (how many are left, of how many)}}`."""
Reshape = Callable[[Any, Any], Any]

_original: Reshape = keras.ops.reshape
_watch: ContextVar[Reshape | None] = ContextVar("watch", default=None)
_lock, _users = Lock(), [0]


@dataclass(frozen=True, slots=True)
class Place:
    """Which reshape it is: of what layer, and its number among those of one `call()`."""

    layer: Any
    number: int


def _reshape(x: Any, newshape: Any) -> Any:
    """`keras.ops.reshape`, unless this thread watches what it is given."""
    watch = _watch.get()
    return _original(x, newshape) if watch is None else watch(x, newshape)


@contextmanager
def _watching(watch: Reshape) -> Iterator[None]:
    with _lock:
        _users[0] += 1
        keras.ops.reshape = _reshape
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
        with _lock:
            _users[0] -= 1
            if not _users[0]:
                keras.ops.reshape = _original


@contextmanager
def number_of_reshapes(layer: Any) -> Iterator[None]:
    """Have the reshapes of a layer's own `call()` say which they are, as `op.place`.

    Args:
        layer: The layer, whose `call()` is about to run on symbolic tensors.
    """
    count = iter(range(1 << 30))

    def watch(x: Any, newshape: Any) -> Any:
        made, number = _original(x, newshape), next(count)
        if isinstance(made, keras.KerasTensor):
            object.__setattr__(made._keras_history.operation, "place", Place(layer, number))
        return made

    with _watching(watch):
        yield


def told_call(layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a layer's own `call()`; its reshapes have their shares of what Python says.

    Args:
        layer: The layer; what it was told is an attribute of it.
        call: Its own `call()`.
        args: What that is given.
        kwargs: The same by name.
    """
    shares: Shares | None = vars(layer).get("_reshapes")
    if shares is None:
        return call(layer, *args, **kwargs)
    count = iter(range(1 << 30))

    def watch(x: Any, newshape: Any) -> Any:
        told = shares.get(str(next(count)), {})
        sizes = list(newshape) if told else newshape
        for axis, (left, whole) in told.items():
            sizes[int(axis)] = sizes[int(axis)] * left // whole
        return _original(x, tuple(sizes) if told else newshape)

    with _watching(watch):
        return call(layer, *args, **kwargs)


def tell(layer: Any, shares: Shares) -> None:
    """Have a layer's reshapes make other sizes than its Python says, from now on.

    Args:
        layer: The layer.
        shares: What each is told; a layer that is told of none has its reshapes counted for itself.
    """
    kind: Any = type(layer)
    layer.__class__ = _told(kind)
    object.__setattr__(layer, "_reshapes", dict(shares))


def is_told(layer: Any) -> bool:
    """Whether a layer's reshapes have been told something already."""
    return "_reshapes" in vars(layer)


@cache
def _told(kind: Any) -> type:
    @wraps(kind.call)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return told_call(self, kind.call, args, kwargs)

    members = {"__module__": kind.__module__, "call": call, "_untold": kind}
    return type(kind.__name__, (kind,), members)
