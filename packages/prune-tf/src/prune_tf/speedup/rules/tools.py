"""What many rules need: what a call is given, where channels are, what it makes of zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref, refs_in
from prune_speedup.engine.values import UNKNOWN, Group, Value, spread
from prune_tf.arrays import array_of
from prune_tf.speedup.rules.activations import is_elementwise

__all__ = [
    "activated",
    "arguments",
    "channel_axis",
    "channels",
    "given",
    "inputs",
    "lifted",
    "line",
    "operand",
    "placed",
    "stays_zero",
]

_PROBE = (0.7, -1.3, 2.1, -0.4, 5.0, -3.0)


def arguments(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a call is given, without the variables that its layer reads besides."""
    own = {"equation", *(variable.name.partition(":")[0] for variable in _weights(call.op))}
    return call.args, {k: v for k, v in call.kwargs.items() if k.partition(":")[0] not in own}


def _weights(op: Any) -> Sequence[Any]:
    return op.weights if isinstance(op, keras.layers.Layer) else ()


def inputs(call: Call) -> list[Ref]:
    """Return where the tensors are that a call is given."""
    return refs_in(arguments(call))


def given(flow: Flow, call: Call) -> Value:
    """Return the first, and most often the only, tensor that a call is given."""
    return flow.get(inputs(call)[0])


def operand(flow: Flow, each: Any) -> Value:
    """Return something that an operation is given: a tensor, an array, or a number."""
    if isinstance(each, Ref):
        return flow.get(each)
    numbers = array_of(each) if hasattr(each, "shape") else np.asarray(each)
    zero = numbers.dtype.kind in "fiub" and not numbers.any()
    return Value(tuple(numbers.shape), constant=True, zero=zero)


def channel_axis(call: Call, value: Value, space: int | None = None) -> int:
    """Return the axis of a value along which a layer has its channels, counted from the front.

    Args:
        call: A call of a layer that works on space.
        value: What it is given.
        space: How many axes of space there are, if the layer may be called with more in front.
    """
    if getattr(call.op, "data_format", "") != "channels_first":
        return value.ndim - 1
    return 1 if space is None else value.ndim - 1 - space


def channels(flow: Flow, call: Call, value: Value, axis: int) -> Value:
    """Return the channels of a value, as if it had no other axis; what lies elsewhere stays."""
    for other in range(value.ndim):
        if other != axis:
            flow.pin(value, other, "it works along them")
    return line(value, axis)


def line(value: Value, axis: int) -> Value:
    """Return one axis of a value, at one place of all others."""
    at = tuple(slice(None) if each == axis else 0 for each in range(value.ndim))
    group = value.group_at(axis)
    groups = () if group is None else (Group(group.only({axis}).codes[at]),)
    return Value((value.shape[axis],), groups, constant=value.constant, zero=value.zero)


def placed(one: Value, axis: int, shape: tuple[int, ...]) -> Value:
    """Return channels as one axis of a larger value."""
    groups = tuple(Group(spread(group.codes, axis, shape)) for group in one.groups)
    return Value(shape, groups)


def lifted(parameter: Value, axis: int, ndim: int) -> Value:
    """Return a vector as a value that lies along one axis of several."""
    return placed(
        parameter, axis, tuple(parameter.shape[0] if a == axis else 1 for a in range(ndim))
    )


def activated(flow: Flow, call: Call, value: Value) -> Value:
    """Return a value after the activation of its layer."""
    activation = call.op.activation
    if not is_elementwise(activation):
        why = "its activation may mix channels, as softmax does, or is not written with keras.ops"
        flow.fix_value(value, why)
        return value.at_least(UNKNOWN).never_zero()
    if activation is None or bool((array_of(activation(keras.ops.zeros(1))) == 0).all()):
        return value
    return flow.align([value], value.shape, lambda flags: False)


_known: WeakKeyDictionary[Any, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


def stays_zero(flow: Flow, call: Call) -> Callable[[Sequence[bool]], bool]:
    """Return whether an operation gives zero wherever some of what it is given is zero.

    It is asked, not looked up: run on a few numbers with zeros in the places that are meant.
    """
    args, kwargs = arguments(call)
    refs = refs_in((args, kwargs))
    dtypes = [keras.backend.standardize_dtype(flow.metas[ref.index].dtype) for ref in refs]
    known = _known.setdefault(call.op, {})

    def zero(flags: Sequence[bool]) -> bool:
        key = (*dtypes, *flags)
        if key not in known:
            probes = iter(
                _probe(at, dtype, flag)
                for at, (dtype, flag) in enumerate(zip(dtypes, flags, strict=False))
            )

            def told(each: Any) -> Any:
                if isinstance(each, Ref):
                    return next(probes)
                # An array lies along an axis, which the few numbers have not.
                return (
                    _probe(0, "float32", False)
                    if np.size(each) > 1 and hasattr(each, "shape")
                    else each
                )

            few, named = keras.tree.map_structure(told, (args, kwargs))
            try:
                results = call.op.call(*few, **named)
            except Exception:  # whatever does not work on vectors of six numbers
                known[key] = False
            else:
                known[key] = not array_of(keras.tree.flatten(results)[0]).any()
        return known[key]

    return zero


def _probe(position: int, dtype: str, zero: bool) -> Any:
    numbers = np.zeros(len(_PROBE)) if zero else np.roll(_PROBE, position)
    return keras.ops.cast(keras.ops.convert_to_tensor(numbers.astype("float32")), dtype)
