"""Constants that masked channels leave behind: what they are, and where they can be moved.

A channel that holds the same number for any input, at every place, adds a number of its own to
each sum over it. With that in a bias the sum need not run over the channel, which can then go.
Where the borders are padded with zeros, the sum differs there; but of two such channels one can do
the work of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from prune_speedup.engine.labels import Array
from prune_speedup.engine.mask_effects import Standing
from prune_speedup.engine.plan import Flags
from prune_speedup.engine.propagate import Labelling, Numbers, Zeros, propagate
from prune_speedup.engine.values import CONSTANT, UNIFORM, Group
from prune_tf.arrays import array_of
from prune_tf.inputs import random_input
from prune_tf.layers import slots_of
from prune_tf.speedup.recorded import Recorded, attribute_of, variables_of
from prune_tf.speedup.reference import Values, masked
from prune_tf.speedup.rules.contraction import blurs_borders
from prune_tf.speedup.rules.registry import Rules

__all__ = ["Reader", "measured", "readers", "silenced", "zeros_of"]

Floats = npt.NDArray[np.float64]

_KERNELS = {
    "Dense": ("kernel", 0),
    **{f"Conv{n}D": ("kernel", -2) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": ("kernel", -1) for n in (1, 2, 3)},
    **{f"SeparableConv{n}D": ("depthwise_kernel", -2) for n in (1, 2)},
}
"""What sums over channels: the weight that has a slice for each, and the axis of these."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that sums over channels, and what it reads.

    Attributes:
        layer: The layer.
        variable: The weight that has a slice for each channel.
        axis: The axis of these slices.
        columns: The class of each channel that it reads.
        numbers: The number that each channel is, 0 where its slice is zero, NaN where it is none.
        foldable: Whether its bias can make up for a constant.
        mergeable: Whether one slice can do the work of several.
    """

    layer: Any
    variable: str
    axis: int
    columns: Array
    numbers: Floats
    foldable: bool
    mergeable: bool

    def sums(self) -> Floats:
        """What a channel that is 1 everywhere adds to each output, of the weights as they are."""
        kernel = array_of(getattr(self.layer, self.variable)).astype(np.float64)
        slices = np.moveaxis(kernel, self.axis, 0)
        if self.variable == "kernel":
            # The outputs are behind the channels, once those are in front.
            summed: Floats = slices.reshape(len(slices), -1, slices.shape[-1]).sum(1)
            return summed
        pointwise = array_of(self.layer.pointwise_kernel).astype(np.float64)
        depthwise = slices.reshape(len(slices), -1, slices.shape[-1]).sum(1)
        made: Floats = np.einsum("cm,cmo->co", depthwise, pointwise.reshape(*depthwise.shape, -1))
        return made


def zeros_of(recorded: Recorded, masks: Values) -> Zeros:
    """Return which slices of a model's weights hold nothing but zeros.

    Args:
        recorded: The model.
        masks: Applied to its weights.
    """
    zeros: dict[tuple[int, int], Flags] = {}
    for _, layer, variable in variables_of(recorded.model):
        place = recorded.places.get(id(variable))
        if place is None or not recorded.graph.metas[place].real:
            continue
        zero = array_of(variable) == 0
        mask = masks.get((id(layer), attribute_of(layer, variable)))
        if mask is not None:
            zero = zero | ~mask
        for axis in range(zero.ndim):
            others = tuple(other for other in range(zero.ndim) if other != axis)
            # A tensor of two layers is masked where it is in one of them.
            zeros[place, axis] = zero.all(axis=others) | zeros.get((place, axis), False)
    return zeros


def silenced(recorded: Recorded, labelling: Labelling, masks: Values) -> Values:
    """Return masks that also cover batch norms wherever nothing but a constant comes in.

    Args:
        recorded: The model.
        labelling: Its labels.
        masks: Masks of its weights.
    """
    rules = labelling.flow.rules
    assert isinstance(rules, Rules)
    rules.silent = {}
    try:
        propagate(recorded.graph, rules, zeros_of(recorded, masks), labelling.labels)
        more = {
            (id(layer), name): masks.get((id(layer), name), True) & ~constant
            for layer, constant in rules.silent.values()
            for name in slots_of(layer)
        }
    finally:
        rules.silent = None
    return {**masks, **more}


def measured(recorded: Recorded, labelling: Labelling, masks: Values) -> Numbers:
    """Run the masked model, call by call, and look at the numbers of its channels.

    Args:
        recorded: The model.
        labelling: Its labels, which say along which axes channels lie.
        masks: Applied to its weights.

    Returns:
        What the engine asks for the numbers of a value. A call that cannot be run on what was made
        up, and all that follows it, has none.
    """
    with masked(recorded.model, masks), keras.StatelessScope():
        weights = _fingerprint(recorded.model)
        if recorded.seen is None or recorded.seen[0] != weights:
            recorded.seen = weights, _seen(recorded, labelling)
    seen = recorded.seen[1]

    # In what no input has a part, numbers may still differ with its size, if that is open.
    most = CONSTANT if recorded.has_one_size else UNIFORM

    def numbers(value: int, group: Group) -> Floats | None:
        found = seen.get((value, group.axes[0])) if len(group.axes) == 1 else None
        if found is None:
            return None
        return np.where(group.states() <= most, found.reshape(group.compact().shape), np.nan)

    return numbers


def _seen(recorded: Recorded, labelling: Labelling) -> dict[tuple[int, int], Floats]:
    """The number of each index along labelled axes of all values, NaN where there are several."""
    seen: dict[tuple[int, int], Floats] = {}
    for value, tensor in _run(recorded):
        axes = [g.axes[0] for g in labelling.flow.values[value].groups if len(g.axes) == 1]
        if axes:
            array = array_of(tensor)
            seen |= {(value, axis): _along(array, axis) for axis in axes}
    return seen


def _fingerprint(model: keras.Model) -> bytes:
    """What tells a model's numbers from others, as they are now."""
    digest = blake2b()
    for _, _, variable in variables_of(model):
        digest.update(np.ascontiguousarray(array_of(variable)).view(np.uint8).data)
    return digest.digest()


def _along(array: Array, axis: int) -> Floats:
    lines = np.moveaxis(array, axis, -1)
    lines = lines.reshape(-1, lines.shape[-1])
    found: Floats = lines[0].astype(np.float64)
    # Three places tell nearly all of those that are no constants, without a look at the others.
    for rows in (lines[[len(lines) // 3, len(lines) // 2, -1]], lines):
        left = np.flatnonzero(np.isfinite(found))
        same = np.isclose(rows[:, left], found[left], rtol=1e-6, atol=0).all(axis=0)
        found[left[~same]] = np.nan
    numbers: Floats = np.where(np.isfinite(found), found, np.nan)
    return numbers


def _run(recorded: Recorded) -> Iterator[tuple[int, Any]]:
    """Yield the values that the calls of a model make of random numbers, one after the other."""
    graph, rng = recorded.graph, np.random.default_rng(0)
    known: dict[int, Any] = {}
    for place in graph.inputs:
        spec = keras.KerasTensor(graph.metas[place].shape, graph.metas[place].dtype)
        known[place] = keras.ops.convert_to_tensor(random_input(spec, 1, 1, rng))
    last = {place: at for at, call in enumerate(graph.calls) for place in call.inputs()}

    for at, (call, told) in enumerate(zip(graph.calls, recorded.calls, strict=True)):
        results = _results(recorded, told, known)
        for made, result in zip(call.outputs, results, strict=False):
            if made is not None:
                known[made] = result
                yield made, result
        for read in call.inputs():
            if last[read] == at:
                known.pop(read, None)


def _results(recorded: Recorded, call: Any, known: dict[int, Any]) -> list[Any]:
    def told(given: Any) -> Any:
        if id(given) in recorded.found.stands:
            return recorded.found.stands[id(given)][1]
        if isinstance(given, keras.KerasTensor):
            return known[recorded.places[id(given)]]
        return given

    try:
        args, kwargs = keras.tree.map_structure(told, call.arguments)
        return list(keras.tree.flatten((call.wrapper or call.op)(*args, **kwargs)))
    except Exception:  # whatever does not run on numbers that were made up
        return []


def readers(
    recorded: Recorded, found: Standing, numbers: Numbers, zeros: Zeros
) -> dict[int, Reader]:
    """Return the layers that sum over constants, by the position of their call.

    Args:
        recorded: The model.
        found: What its masks leave of its units.
        numbers: What the constants are.
        zeros: Which slices of weights hold nothing but zeros.
    """
    made: dict[int, Reader] = {}
    for position in {position for position, _, _ in (found.flow and found.flow.leaks) or ()}:
        reader = _reader(recorded, found, numbers, zeros, position)
        if reader is not None:
            made[position] = reader
    return made


def _reader(
    recorded: Recorded, found: Standing, numbers: Numbers, zeros: Zeros, position: int
) -> Reader | None:
    call = recorded.graph.calls[position]
    layer, kernel = call.op, _KERNELS.get(call.name)
    if kernel is None or getattr(layer, "groups", 1) > 1 or recorded.is_shared(layer):
        return None
    assert found.flow is not None
    place = recorded.places[id(recorded.calls[position].inputs[0])]
    value = found.flow.values[place]
    first = getattr(layer, "data_format", "") == "channels_first"
    variable, axis = kernel
    rank = len(getattr(layer, variable).shape)
    group = value.group_at(value.ndim + 1 - rank if first else -1)
    seen = None if group is None or len(group.axes) > 1 else numbers(place, group)
    if group is None or seen is None:
        return None
    ignored = zeros[recorded.places[id(getattr(layer, variable))], axis % rank]
    # A layer inside of another gets no bias that its holder's Python does not make.
    holder = recorded.calls[position].holder
    foldable = not blurs_borders(layer) and (holder is None or bool(layer.use_bias))
    return Reader(
        layer,
        variable,
        axis % rank,
        found.roots[group.compact().ravel()],
        np.where(ignored, 0.0, seen.ravel()),
        foldable,
        variable == "kernel",
    )
