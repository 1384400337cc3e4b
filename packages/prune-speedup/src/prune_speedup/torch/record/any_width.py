"""Notice whether a forward could know how wide its layers are.

A forward that calls nothing but what does the same to any number of channels, and that learns no
width, does after a cut what it did before. It may learn one from a tensor or from a layer, such as
its `out_features`, which a hook may read, or a decorator. So while a forward is recorded, these
attributes tell when they are read, whoever reads them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from prune_speedup.torch.resize.layers import sizes_written

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


_WIDTHS: dict[Any, frozenset[str]] = {
    kind: sizes_written(kind) or frozenset()
    for kind in (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)
}
"""What a cut changes beside tensors, in those layers whose functions are all on the list."""

_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
_TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
_HANDING_ON = frozenset(
    [kind._conv_forward.__code__ for kind in _CONVOLUTIONS]
    + [kind.forward.__code__ for kind in _TRANSPOSED]
)
"""Code that reads a width only to tell it to a function of torch."""


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
        if len(_told) == 1:
            _watch()
    try:
        yield
    finally:
        with _lock:
            _told.remove(known)
            if not _told:
                _watch_no_more()


def _watch() -> None:
    for kind, names in _WIDTHS.items():
        for name in names:
            if name not in vars(kind):
                setattr(kind, name, _Width(name))
        # What a layer says of itself has its widths in it, read past everything.
        kind.extra_repr = _telling(kind.extra_repr)


def _watch_no_more() -> None:
    for kind, names in _WIDTHS.items():
        for name in names:
            if isinstance(vars(kind).get(name), _Width):
                delattr(kind, name)
        kind.extra_repr = getattr(kind.extra_repr, "__wrapped__", kind.extra_repr)


_lock = Lock()
_told: list[Callable[[], None]] = []


def _tell() -> None:
    for known in (*_told,):
        known()


def _telling(function: Any) -> Any:
    @wraps(function)
    def tells(*args: Any) -> Any:
        _tell()
        return function(*args)

    return tells


class _Width:
    """An attribute that tells when it is read. Were it a property, torch would script it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layer: nn.Module | None, kind: type) -> Any:
        # What is compiled meanwhile, in another thread, is no part of the forward.
        compiling = torch.compiler.is_compiling()
        if not compiling and sys._getframe(1).f_code not in _HANDING_ON:
            _tell()
        if layer is None or self._name not in layer.__dict__:  # classes have no width
            raise AttributeError(self._name)
        return layer.__dict__[self._name]

    def __set__(self, layer: nn.Module, value: Any) -> None:
        layer.__dict__[self._name] = value

    def __delete__(self, layer: nn.Module) -> None:
        if layer.__dict__.pop(self._name, self) is self:
            raise AttributeError(self._name)
