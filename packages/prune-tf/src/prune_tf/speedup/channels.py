"""Along which axis a weight brings in channels, and which labels these carry.

Most layers have one such axis. Two kinds have a choice:

    heads that stay        query (width, heads, size)     what is inside of each head may go
    a layer of one's own   experts (experts, width, 128)  whatever can go and comes out of its call
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.propagate import Labelling
from prune_tf.axes import brought_letters, output_axis
from prune_tf.layers import weight_slots
from prune_tf.speedup.recorded import Recorded
from prune_tf.speedup.rules.registry import RULES

__all__ = ["CELLS", "Channels", "channels_of", "is_own"]

CELLS = ("SimpleRNNCell", "GRUCell", "LSTMCell")
"""What recurrent layers run step by step: a unit is a column of each gate."""
_KERNELS = {
    "Dense": ("kernel", -1),
    **{f"Conv{n}D": ("kernel", -1) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": ("kernel", -2) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": ("kernel", -2) for n in (1, 2)},
    **{f"SeparableConv{n}D": ("pointwise_kernel", -1) for n in (1, 2)},
}


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels that a weight brings in.

    Attributes:
        slot: The attribute of the layer that holds the weight; empty for the layer's main one.
        axis: The axis of the weight along which they lie, where the layer leaves a choice.
        labels: The label of each of them.
    """

    slot: str
    axis: int | None
    labels: Array


def channels_of(made: Recorded, labelling: Labelling, layer: Any) -> list[Channels]:
    """Return what the weights of a layer bring in; empty if that is not known.

    Args:
        made: The model.
        labelling: Its labels.
        layer: One of its layers.
    """
    followed = _followed(made, labelling)
    if is_own(layer) or type(layer).__name__ in CELLS:
        return [*_of_own(made, labelling, layer, followed)]
    if not type(layer).__module__.startswith("keras."):
        return []
    kind = type(layer).__name__
    if kind == "EinsumDense":
        variable, axes = layer._kernel, _axes_of_einsum(layer)
    elif kind in _KERNELS:
        name, axis = _KERNELS[kind]
        variable, axes = getattr(layer, name, None), [axis]  # None where it was never built
    else:
        return []
    place = made.places.get(id(variable))
    if place is None or place not in followed:
        return []
    columns = [(axis, labelling.axes[place][axis]) for axis in axes]
    told = [(axis, column) for axis, column in columns if column is not None]
    movable = [each for each in told if not labelling.labels.is_fixed(each[1]).all()]
    if not told:
        return []
    axis, column = (movable or told)[0]
    if kind.startswith("Depthwise"):
        column = np.repeat(column, variable.shape[-1])
    return [Channels("", axis if kind == "EinsumDense" else None, column)]


def is_own(layer: Any) -> bool:
    """Whether a layer is none of Keras', nor a kind of one of those that have a weight.

    Args:
        layer: A layer.
    """
    from_keras = [each for each in type(layer).__mro__ if each.__module__.startswith("keras.")]
    known = any(each.__name__ in RULES for each in from_keras)
    return not (known or type(layer) in from_keras or isinstance(layer, keras.layers.Embedding))


def _axes_of_einsum(layer: Any) -> list[int]:
    """The axes that the kernel brings in: heads first, then what is inside of each."""
    first = output_axis(layer)
    kernel, brought = brought_letters(layer)
    return [first, *(at for at in map(kernel.index, brought) if at != first)]


def _of_own(
    made: Recorded, labelling: Labelling, layer: Any, followed: set[int]
) -> Iterator[Channels]:
    for slot in weight_slots(layer):
        place = made.places.get(id(getattr(layer, slot.name)))
        if place is None or place not in followed:
            continue
        columns = [*enumerate(labelling.axes[place])]
        if type(layer).__name__ in CELLS:
            yield from (Channels(slot.name, at, c) for at, c in columns[1:] if c is not None)
            continue
        leaving = _leaving(made, labelling, place)
        for axis, column in columns:
            if column is None or labelling.labels.is_fixed(column).all():
                continue
            # What is summed over is read, not brought in.
            if among(labelling.labels.find(column), leaving).any():
                yield Channels(slot.name, axis, column)
                break


def _leaving(made: Recorded, labelling: Labelling, place: int) -> Array:
    """The classes in what the calls make that read a value."""
    values = labelling.flow.values
    found = [
        labelling.labels.find(group.compact().ravel())
        for call in made.graph.calls
        if place in call.inputs()
        for output in call.outputs
        if output is not None
        for group in values[output].groups
    ]
    return np.concatenate([np.array([], dtype=np.int64), *found])


def _followed(made: Recorded, labelling: Labelling) -> set[int]:
    """The values that a call with a rule reads."""
    calls = enumerate(made.graph.calls)
    ruled = (call for at, call in calls if at not in labelling.flow.unruled)
    return {place for call in ruled for place in call.inputs()}
