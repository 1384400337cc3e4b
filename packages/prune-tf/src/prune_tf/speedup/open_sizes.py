"""Sizes for the axes that a model leaves open, so that what it does can be counted.

The inside of a layer was recorded with sizes of its own. A graph of layers says `None`, and where
that is more than the number of samples, every layer is asked for the shape of what it puts out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from prune_tf.inputs import SIZES
from prune_tf.speedup.graph import Call
from prune_tf.speedup.record import Given, Passed

__all__ = ["SAMPLES", "Sizes", "known_sizes"]

SAMPLES = 2
"""How many samples there are, as where the inside of a layer is recorded."""
_OPEN = 8

Sizes = dict[int, tuple[int, ...]]


def known_sizes(calls: Sequence[Call], really: Mapping[int, tuple[int, ...]]) -> Sizes:
    """Return the shape of every tensor of some calls, without an open size.

    Args:
        calls: The calls.
        really: The shapes of tensors of which the layer that makes them says another shape.
    """
    tensors = (tensor for call in calls for tensor in (*call.inputs, *call.outputs))
    if really or any(map(_is_open, tensors)):
        for size in SIZES:
            try:
                return _asked(calls, size, really)
            except Exception:  # whatever a layer's own Python raises
                continue
    return _written_down(calls) | dict(really)


def _is_open(tensor: Any) -> bool:
    return None in tensor.shape[1:]


def _written_down(calls: Sequence[Call], size: int = _OPEN) -> Sizes:
    tensors = [tensor for call in calls for tensor in (*call.inputs, *call.outputs)]
    return {id(tensor): _closed(tensor, size) for tensor in tensors}


def _closed(tensor: Any, size: int) -> tuple[int, ...]:
    sizes = enumerate(tuple(tensor.shape))
    return tuple(int(each or (SAMPLES if at == 0 else size)) for at, each in sizes)


def _asked(calls: Sequence[Call], size: int, really: Mapping[int, tuple[int, ...]]) -> Sizes:
    """Ask every call for the shape of what it makes of tensors without an open size.

    Where what goes in is as it was when the call was noted down, what comes out is so as well.
    """
    known: dict[int, Any] = {}

    def closed(given: Any) -> Any:
        if not isinstance(given, keras.KerasTensor):
            return given
        if id(given) not in known:
            known[id(given)] = keras.KerasTensor(_closed(given, size), given.dtype)
        return known[id(given)]

    def other(given: Any) -> bool:
        return tuple(known[id(given)].shape)[1:] != _closed(given, size)[1:]

    for call in calls:
        args, kwargs = keras.tree.map_structure(closed, call.arguments)
        inputs = [closed(tensor) for tensor in call.inputs]
        if isinstance(call.op, Passed) and not _is_open(call.outputs[0]):
            made: list[Any] = list(call.outputs)
        elif isinstance(call.op, Passed):
            made = inputs
        elif isinstance(call.op, Given) or not (
            any(map(_is_open, call.outputs)) or any(map(other, call.inputs))
        ):
            made = [closed(output) for output in call.outputs]
        else:
            made = keras.tree.flatten(call.op.compute_output_spec(*args, **kwargs))
        for output, spec in zip(call.outputs, made, strict=True):
            told = really.get(id(output))
            known[id(output)] = spec if told is None else keras.KerasTensor(told, spec.dtype)
    return {key: _closed(spec, size) for key, spec in known.items()}
