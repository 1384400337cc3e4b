"""Layers that, for a while, run their own `call()` on symbolic tensors.

Keras asks a layer that is given symbolic tensors for the shape of its output, and notes down one
call of it. The layers of a block are only seen if the block runs instead. Many blocks cannot even
say the shape of what they return, because no model ever asks the layers inside of another.

    Block(x)    noted:    Block                   as Keras does it
                          Dense, gelu, Dense      while the block is inlined
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import keras

from prune_tf.speedup.sizes import Size, remembered

__all__ = ["inlined"]


@contextmanager
def inlined(layers: Sequence[Any]) -> Iterator[list[Any]]:
    """Have layers run their own `call()` when they are called; yields those that cannot.

    A layer that cannot is called as Keras does it. The whole numbers that a layer reads from its
    attributes and tensors remember where they are from.
    """
    left: list[Any] = []
    kinds = [(layer, type(layer)) for layer in layers]
    sparing = [
        each
        for each in {
            id(each): each for layer in layers for each in layer._flatten_layers()
        }.values()
        if type(each) is keras.layers.EinsumDense
    ]
    for layer in sparing:
        # It would only tell the sizes that were known when it was built.
        spec = partial(keras.Operation.compute_output_spec, layer)
        object.__setattr__(layer, "compute_output_spec", spec)
    for layer, kind in kinds:
        layer.__class__ = _inlined(kind)  # type: ignore[arg-type]
        object.__setattr__(layer, "_left_to_keras", left)
    try:
        with remembered():
            yield left
    finally:
        for layer in sparing:
            vars(layer).pop("compute_output_spec", None)
        for layer, kind in kinds:
            layer.__class__ = kind
            vars(layer).pop("_left_to_keras", None)


@cache
def _inlined(kind: Any) -> type:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        settings = {name: value for name, value in kwargs.items() if name != "training"}
        if "training" in inspect.signature(self.call).parameters:
            settings["training"] = False
        try:
            return self.call(*args, **settings)
        except Exception as error:  # whatever a layer's own Python raises
            if not _is_symbolic(args, kwargs):
                raise
            self._left_to_keras.append(self)
            try:
                return kind.__call__(self, *args, **kwargs)
            except Exception:
                raise error from None

    def read(self: Any, name: str) -> Any:
        value = kind.__getattribute__(self, name)
        if type(value) is int and value > 1 and name in kind.__getattribute__(self, "__dict__"):
            return Size.read(self, name, value)
        return value

    members = {"__module__": kind.__module__, "__call__": run, "__getattribute__": read}
    return type(kind.__name__, (kind,), members)


def _is_symbolic(args: Any, kwargs: Any) -> bool:
    given = keras.tree.flatten((args, kwargs))
    return any(isinstance(each, keras.KerasTensor) for each in given)
