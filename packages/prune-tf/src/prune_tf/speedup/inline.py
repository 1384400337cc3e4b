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
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import keras

from prune_tf.speedup.of_tensorflow import spoken_by_keras
from prune_tf.speedup.reshapes import number_of_reshapes
from prune_tf.speedup.sizes import Size, remembered

__all__ = ["Inlining", "inlined"]

Stands = dict[int, tuple[Any, Any]]
"""`{symbolic tensor: (the tensor, the variable that it stands for)}`, by its id."""


@dataclass
class Inlining:
    """What layers are told while they run their own `call()`, and what comes of it.

    Attributes:
        symbolic: Whether the weights that they read are symbolic tensors as well. Keras computes
            `ops.reshape(self.sinks, …)` at once, and nothing tells what the result is made of.
        left: The layers that cannot run their own `call()`.
        stands: What stands for which weight.
    """

    symbolic: bool = True
    left: list[Any] = field(default_factory=list)
    stands: Stands = field(default_factory=dict)
    _known: dict[int, Any] = field(default_factory=dict)

    def stand_in(self, variable: Any) -> Any:
        """Return what stands for a weight, the same each time."""
        if id(variable) not in self._known:
            made = keras.KerasTensor(tuple(variable.shape), variable.dtype, name=variable.name)
            self._known[id(variable)] = made
            self.stands[id(made)] = (made, variable)
        return self._known[id(variable)]


@contextmanager
def inlined(layers: Sequence[Any], state: Inlining) -> Iterator[None]:
    """Have layers run their own `call()` when they are called; a layer that cannot is noted.

    It is called as Keras does it. The whole numbers that a layer reads from its attributes and
    tensors remember where they are from.

    Args:
        layers: The layers.
        state: What they are told, and what comes of it.
    """
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
        object.__setattr__(layer, "_inlining", state)
    try:
        with remembered(), spoken_by_keras():
            yield
    finally:
        for layer in sparing:
            vars(layer).pop("compute_output_spec", None)
        for layer, kind in kinds:
            layer.__class__ = kind
            vars(layer).pop("_inlining", None)


@cache
def _inlined(kind: Any) -> type:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        settings = {name: value for name, value in kwargs.items() if name != "training"}
        if "training" in inspect.signature(self.call).parameters:
            settings["training"] = False
        try:
            with number_of_reshapes(self):
                return self.call(*args, **settings)
        except Exception as error:  # whatever a layer's own Python raises
            if not _is_symbolic(args, kwargs):
                raise
            self._inlining.left.append(self)
            try:
                return kind.__call__(self, *args, **kwargs)
            except Exception:
                raise error from None

    def read(self: Any, name: str) -> Any:
        value = kind.__getattribute__(self, name)
        if type(value) is int and value > 1 and name in kind.__getattribute__(self, "__dict__"):
            return Size.read(self, name, value)
        if isinstance(value, keras.Variable):
            state = kind.__getattribute__(self, "_inlining")
            own = kind.__getattribute__(self, "_trainable_variables")
            if state.symbolic and any(value is each for each in own):
                return state.stand_in(value)
        return value

    members = {"__module__": kind.__module__, "__call__": run, "__getattribute__": read}
    return type(kind.__name__, (kind,), members)


def _is_symbolic(args: Any, kwargs: Any) -> bool:
    given = keras.tree.flatten((args, kwargs))
    return any(isinstance(each, keras.KerasTensor) for each in given)
