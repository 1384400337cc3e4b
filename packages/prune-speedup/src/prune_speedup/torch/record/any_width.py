"""Notice whether a forward could know how wide its layers are.

A forward that calls nothing but what does the same to any number of channels, and that learns no
width, does after a cut what it did before. It may learn one from a tensor or from a layer, such as
its `out_features`, which a hook may read, or a decorator. So while a forward is recorded, these
attributes tell when they are read, whoever reads them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["hides_widths", "is_for_any_width", "noticing_widths"]

_NAMES = """
conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear batch_norm
relu relu_ relu6 hardtanh hardtanh_ hardswish hardsigmoid silu gelu elu sigmoid tanh dropout
max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean flatten
cat add add_ mul mul_ __add__ __iadd__ __mul__ __imul__ dim transpose permute
"""
_FOR_ANY_WIDTH = frozenset(
    getattr(owner, name)
    for name in _NAMES.split()
    for owner in (torch, torch.Tensor, F)
    if hasattr(owner, name)
) | {torch._C._set_grad_enabled}
_PLAIN = frozenset({torch.Tensor, nn.Parameter})
_TELLS_NO_WIDTH = frozenset({"device", "dtype", "is_cuda", "layout", "ndim", "requires_grad"})
"""Attributes of a tensor."""


def is_for_any_width(func: Any, types: Any) -> bool:
    """Whether a function of torch does the same to any number of channels, and tells of none.

    Args:
        func: As `__torch_function__` gets it.
        types: The classes of tensors that have a say in what it does.
    """
    if not _PLAIN.issuperset(types):
        return False
    if getattr(func, "__name__", "") == "__get__":
        return getattr(func.__self__, "__name__", "") in _TELLS_NO_WIDTH
    return func in _FOR_ANY_WIDTH


_WIDTHS: dict[Any, tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.modules.conv._ConvNd: ("in_channels", "out_channels"),
    nn.modules.batchnorm._NormBase: ("num_features",),
}
"""What layers write down beside tensors, of those kinds that do not read it themselves."""


@lru_cache(maxsize=1024)
def hides_widths(kind: type) -> bool:
    """Whether a class has attributes of its own in the place of these, which nobody notices."""
    return any(
        name in vars(base)
        for torchs, names in _WIDTHS.items()
        if issubclass(kind, torchs)
        for base in kind.__mro__[: kind.__mro__.index(torchs)]
        for name in names
    )


@contextmanager
def noticing_widths(known: Callable[[], None]) -> Iterator[None]:
    """Be told meanwhile when anybody, in any thread, reads the width of a layer."""
    with _lock:
        _told.append(known)
        for kind, name in _attributes() if len(_told) == 1 else ():
            if name not in vars(kind):
                setattr(kind, name, _Width(name))
    try:
        yield
    finally:
        with _lock:
            _told.remove(known)
            for kind, name in _attributes() if not _told else ():
                if isinstance(vars(kind).get(name), _Width):
                    delattr(kind, name)


def _attributes() -> list[tuple[Any, str]]:
    return [(kind, name) for kind, names in _WIDTHS.items() for name in names]


_lock = Lock()
_told: list[Callable[[], None]] = []


class _Width:
    """An attribute that tells when it is read. Were it a property, torch would script it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layer: nn.Module | None, kind: type) -> Any:
        for known in (*_told,):
            known()
        if layer is None or self._name not in vars(layer):
            raise AttributeError(self._name)
        return vars(layer)[self._name]

    def __set__(self, layer: nn.Module, value: Any) -> None:
        vars(layer)[self._name] = value

    def __delete__(self, layer: nn.Module) -> None:
        if vars(layer).pop(self._name, self) is self:
            raise AttributeError(self._name)
