"""How wide torch's layers are, as they have written it down beside their tensors."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

__all__ = ["WIDTHS", "noticing_who_asks", "widths_written"]

WIDTHS: dict[Any, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in (
        (nn.Linear, "in_features out_features"),
        (nn.Bilinear, "in1_features in2_features out_features"),
        (nn.modules.conv._ConvNd, "in_channels out_channels groups"),
        (nn.modules.batchnorm._NormBase, "num_features"),
        (nn.GroupNorm, "num_groups num_channels"),
        (nn.LayerNorm, "normalized_shape"),
        (nn.RMSNorm, "normalized_shape"),
        (nn.Embedding, "num_embeddings embedding_dim"),
        (nn.EmbeddingBag, "num_embeddings embedding_dim"),
        (nn.PReLU, "num_parameters"),
        (nn.RNNBase, "input_size hidden_size proj_size"),
        (nn.modules.rnn.RNNCellBase, "input_size hidden_size"),
        (nn.MultiheadAttention, "embed_dim num_heads kdim vdim"),
    )
}
"""Attributes of each kind of layer: all that changes in one of torch's own that is cut."""


def widths_written(kind: type[nn.Module]) -> frozenset[str] | None:
    """Which attributes of a layer are its widths; None for a layer that may have any."""
    if not kind.__module__.startswith(("torch.", "prune_speedup.")):
        return None
    return next((names for base, names in WIDTHS.items() if issubclass(kind, base)), None)


@contextmanager
def noticing_who_asks(asked: Callable[[], None]) -> Iterator[None]:
    """Be told meanwhile when code reads how wide a layer is.

    No call of torch tells that, and no look at a model's source: a hook may do it, a decorator, or
    `getattr`. So meanwhile these attributes tell, whoever reads them. What convolutions
    read of their own is handed on to a call, which tells. What scripted code reads nobody sees, so
    that a call of it counts as well.
    """
    with _lock:
        if not _asked:
            _put_up()
        _asked.append(asked)
    try:
        yield
    finally:
        with _lock:
            _asked.remove(asked)
            if not _asked:
                _take_down()


_lock = Lock()
_asked: list[Callable[[], None]] = []
"""Who is told, in any thread."""

_SCRIPTED: tuple[Any, ...] = (torch._C.ScriptFunction, torch._C.ScriptMethod)
_scripted_calls = [kind.__call__ for kind in _SCRIPTED]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_HANDING_ON = frozenset(
    [kind._conv_forward.__code__ for kind in _CONVOLUTIONS]
    + [kind.forward.__code__ for kind in _TRANSPOSED]
)
"""The code that reads a width of its own layer only to hand it on to a call of torch."""


def _put_up() -> None:
    for kind, names in WIDTHS.items():
        for name in names:
            setattr(kind, name, _Width(name))
    for kind, call in zip(_SCRIPTED, _scripted_calls, strict=True):
        kind.__call__ = _telling(call)


def _take_down() -> None:
    for kind, names in WIDTHS.items():
        for name in names:
            delattr(kind, name)
    for kind, call in zip(_SCRIPTED, _scripted_calls, strict=True):
        kind.__call__ = call


def _tell() -> None:
    for asked in (*_asked,):
        asked()


class _Width:
    """An attribute of a layer that tells when it is read; no property, which torch would script."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layer: nn.Module | None, kind: type) -> Any:
        if layer is None:
            raise AttributeError(self._name)
        if sys._getframe(1).f_code not in _HANDING_ON:
            _tell()
        try:
            return vars(layer)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, layer: nn.Module, value: Any) -> None:
        vars(layer)[self._name] = value

    def __delete__(self, layer: nn.Module) -> None:
        del vars(layer)[self._name]


def _telling(call: Any) -> Any:
    def tell_and_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        _tell()
        return call(self, *args, **kwargs)

    return tell_and_call
