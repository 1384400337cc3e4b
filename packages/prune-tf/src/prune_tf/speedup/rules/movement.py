"""What only moves data is run, as it is, on labels instead of numbers.

    h (2, 6)               axis 1:  1 2 3 4 5 6
    reshape(h, (2, 3, 2))  axes 1 and 2:  1 2 / 3 4 / 5 6

A small layer can lose rows of these or columns. It loses rows, so 1=2, 3=4 and 5=6; and a number in
its Python that says how many rows there are has to follow, or they stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import keras
import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.joining import apart
from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import (
    CONSTANT,
    Group,
    Value,
    at_first,
    encode,
    expanded,
    extended,
    mixed,
    spread,
    squeezed,
    without_copies,
)
from prune_tf.arrays import array_of
from prune_tf.speedup.reshapes import Place
from prune_tf.speedup.rules.registry import Rules, rule
from prune_tf.speedup.rules.tools import arguments, given, inputs, operand
from prune_tf.speedup.sizes import Size, Source, source_of

__all__: list[str] = []

_NONE: Array = np.array([], dtype=np.int64)


@rule("Flatten", "Reshape")
def reshape(flow: Flow, call: Call) -> Value:
    """Other axes for the same values."""
    value, shape = given(flow, call), flow.result_shape(call)
    if prod(value.shape) != prod(shape):
        raise Declined("it makes samples of them, and nothing says how many")
    moved: list[Array] = []
    for group in value.groups:
        codes = group.codes
        if getattr(call.op, "data_format", "") == "channels_first":
            # As the layer itself does, perhaps step by step, with an axis more in front.
            codes = np.moveaxis(codes, len(shape) - 1, -1)
        moved.append(codes.reshape(shape))
    made = _gathered(flow, call, value, moved, shape)
    target = getattr(call.op, "target_shape", None)
    if call.name == "Reshape":
        _written(flow, call, made, call.op.newshape if target is None else (None, *target))
    return made


@rule("Permute", "Transpose", "Moveaxis", "Swapaxes", "ExpandDims", "Squeeze")
@rule("Tile", "GetItem", "Slice", "Flip", "Roll", "Unstack")
def move(flow: Flow, call: Call) -> list[Value]:
    """The same places along other axes, or some of them: an axis that is left whole may go."""
    value = given(flow, call)
    in_steps = _in_steps(flow, call, value) if call.name == "GetItem" else []
    made = _moved(flow, call, value)
    whole = [*in_steps, *(group.compact().ravel() for group in value.groups)]
    for each in made:
        for group in each.groups:
            if not any(np.array_equal(group.compact().ravel(), labels) for labels in whole):
                flow.fix(group.compact(), "it picks some of them")
        if call.name == "Slice":
            _written(flow, call, each, call.op.shape)
    left = [group.compact().ravel() for each in made for group in each.groups]
    every, picked = np.concatenate([_NONE, *whole]), np.concatenate([_NONE, *left])
    lost = ~among(flow.labels.find(every), flow.labels.find(picked))
    flow.fix(every[lost], "it leaves them out")
    return made


@rule("BroadcastTo")
def broadcast_to(flow: Flow, call: Call) -> Value:
    """Copies, of which there are as many as some axis is long, if their number is read there."""
    value, shape, rules = given(flow, call), flow.result_shape(call), flow.rules
    assert isinstance(rules, Rules)
    [made] = _moved(flow, call, value)
    _written(flow, call, made, call.op.shape)
    groups = list(made.groups)
    for axis, number in enumerate(call.op.shape):
        at = axis - len(shape) + value.ndim
        copied = axis > 0 and (at < 0 or value.shape[at] == 1)
        if not (copied and isinstance(number, Size) and number > 1 and len(number.sources) == 1):
            continue
        labels = flow.labels.new(int(number))
        if (source := source_of(number)) is not None and rules.repairs:
            _counts(flow, rules, source, labels)
        else:  # what is that long may be made by a call that is looked at later
            flow.deferred.append(partial(_as_many, flow, rules, number.sources[0], labels))
        groups.append(Group(spread(encode(labels, made.state), axis, shape)))
    return replace(made, groups=tuple(groups))


def _as_many(flow: Flow, rules: Rules, source: Source, labels: Array) -> None:
    """There are as many copies as something is long."""
    known = _counted_by(flow, rules, source)
    if known is not None and len(known) == len(labels):
        flow.labels.tie(known, labels)
    else:
        flow.fix(labels, "their number is read where nothing goes")


def _in_steps(flow: Flow, call: Call, value: Value) -> list[Array]:
    """What slices such as `x[..., ::2]` and `x[..., 1::2]` pick, one of each so many neighbours.

    Neighbours go together, so that what is picked is still one of each.
    """
    key = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(each is not Ellipsis and not isinstance(each, slice) for each in key):
        return []
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = (*key[:at], *[slice(None)] * (value.ndim - len(key) + 1), *key[at + 1 :])
    picked = []
    for axis, each in enumerate(key):
        step, start, group = each.step or 1, each.start or 0, value.group_at(axis)
        fits = step > 1 and 0 <= start < step and each.stop is None
        if fits and group is not None and group.axes == (axis,) and not value.shape[axis] % step:
            neighbours = group.compact().reshape(-1, step)
            flow.labels.tie(neighbours, neighbours[:, :1], f"every other is picked ({flow.where})")
            picked.append(neighbours[:, start])
    return picked


@rule("Repeat", "RepeatVector")
def repeat(flow: Flow, call: Call) -> list[Value]:
    """The same values at more places; how often is the same for any number of channels."""
    return _moved(flow, call, given(flow, call))


@rule("Split")
def split(flow: Flow, call: Call) -> Value | Sequence[Value | None]:
    """Parts of equal size, which have to stay equal: what goes from one goes from each."""
    if not isinstance(call.op.indices_or_sections, int):
        return move(flow, call)
    made = _moved(flow, call, given(flow, call))
    along = [group.compact() for each in made if (group := each.group_at(call.op.axis))]
    for labels in along[1:]:
        flow.labels.tie(along[0], labels, f"cut into even parts ({flow.where})")
    return made


@rule("Take")
def take(flow: Flow, call: Call) -> Value:
    """`table[indices]`, as of an embedding: what lies along the other axes of the table."""
    table, indices = (operand(flow, each) for each in call.args[:2])
    if not isinstance(call.op.axis, int):
        raise Declined("it picks of all that there is")
    axis, shape = call.op.axis % table.ndim, flow.result_shape(call)
    flow.pin(table, axis, "it picks from them")
    flow.fix_value(indices, "it picks by them")
    groups = []
    for group in table.groups:
        if axis not in group.axes:
            codes: Array = group.codes.take([0], axis).squeeze(axis)
            lift = tuple([slice(None)] * axis + [None] * indices.ndim)
            groups.append(Group(expanded(codes[lift], shape)))
    return Value(shape, tuple(groups))


@rule("TakeAlongAxis")
def take_along_axis(flow: Flow, call: Call) -> Value:
    """One place each along one axis; along the others both tensors lie side by side."""
    value, indices = (operand(flow, each) for each in call.args[:2])
    if call.op.axis is None:
        raise Declined("it picks of all that there is")
    axis, shape = call.op.axis % value.ndim, flow.result_shape(call)
    flow.pin(value, axis, "it picks from them")
    if indices.group_at(axis) is not None:
        flow.pin(indices, axis, "it picks by them")
    sides = []
    for each in (value, indices):
        groups = tuple(
            Group(at_first(group.codes, (axis,))) for group in each.groups if axis not in group.axes
        )
        sizes = tuple(1 if at == axis else size for at, size in enumerate(each.shape))
        sides.append(replace(each, shape=sizes, groups=groups))
    thin = tuple(1 if at == axis else size for at, size in enumerate(shape))
    made = flow.align(sides, thin, lambda flags: flags[0]).at_least(CONSTANT)
    return Value(shape, tuple(Group(extended(group.codes, shape)) for group in made.groups))


@rule("Pad")
def pad(flow: Flow, call: Call) -> Value:
    """Zeros around a constant that is not 0 make it vary."""
    value, widths = given(flow, call), call.op.pad_width
    if len(widths) != value.ndim or call.op.mode != "constant":
        raise Declined("it puts other than zeros beside them")
    padded = [axis for axis, width in enumerate(widths) if any(width)]
    flow.pin_all(value, padded, "it puts others beside them")
    shape = flow.result_shape(call)
    kept = (group for group in value.groups if not {*padded} & {*group.axes})
    groups = tuple(Group(expanded(without_copies(group.codes), shape)) for group in kept)
    return Value(shape, groups).at_least(CONSTANT)


def _moved(flow: Flow, call: Call, value: Value) -> list[Value]:
    """Run a call on the labels of what it is given."""
    moved = [_run(call, group.codes) for group in value.groups]
    made = []
    for at in range(len(call.outputs)):
        shape = flow.result_shape(call, at)
        made.append(_gathered(flow, call, value, [each[at] for each in moved], shape))
    return made


def _run(call: Call, codes: Array) -> list[Array]:
    """What the operation makes of codes: it moves their places, which any backend can hold."""
    if len(inputs(call)) != 1:
        raise Declined("it goes by another tensor")
    small = without_copies(codes)
    places = np.arange(small.size, dtype=np.int32).reshape(small.shape)
    grid = keras.ops.convert_to_tensor(np.broadcast_to(places, codes.shape).copy())
    args, kwargs = keras.tree.map_structure(
        lambda each: grid if isinstance(each, Ref) else each, arguments(call)
    )
    results = keras.tree.flatten(call.op.call(*args, **kwargs))
    return [small.ravel()[array_of(each)] for each in results]


def _gathered(
    flow: Flow, call: Call, value: Value, moved: Sequence[Array], shape: tuple[int, ...]
) -> Value:
    """Codes that were moved, each along one axis again."""
    groups = []
    for codes in moved:
        group = Group(squeezed(codes.astype(np.int64)))
        if len(group.axes) > 1:
            group = _in_lines(flow, call, group, value.ndim)
        if group.axes:
            groups.append(group)
    return Value(shape, apart(flow, groups), constant=value.constant, zero=value.zero)


def _in_lines(flow: Flow, call: Call, group: Group, before: int) -> Group:
    """Where labels came to lie along several axes, those of one line go together."""
    axis = _most(call, group.axes, group.codes.shape, before)
    others = tuple(each for each in group.axes if each != axis)
    labels = group.compact()
    for other in others:
        labels = labels.take([0], other)
    flow.labels.tie(labels, group.compact(), f"they lie in a line ({flow.where})")
    codes = encode(labels, mixed(group.states().max(axis=others, keepdims=True)))
    return Group(expanded(codes, group.codes.shape))


def _most(call: Call, axes: Sequence[int], shape: Sequence[int], before: int) -> int:
    """Which of several axes may lose places: heads rather than the channels of each."""
    target = list(getattr(call.op, "newshape", ()))
    named = [axis for axis in axes if axis < len(target) and source_of(target[axis]) is not None]
    if named:
        return named[0]
    return axes[0] if before == 3 else max(axes, key=lambda axis: shape[axis])


def _written(flow: Flow, call: Call, made: Value, target: Sequence[Any]) -> None:
    """Numbers in Python code follow if they are read from an attribute; else what they count stays.

    Those of a layer or operation that the model's own graph holds are in its config.
    """
    rules = flow.rules
    assert isinstance(rules, Rules)
    if call.name == "Reshape" and not rules.recorded.is_shared(call.op):
        holder = rules.recorded.calls[flow.position].holder
        if holder is None and (isinstance(call.op, keras.layers.Reshape) or len(made.groups) == 1):
            return
        if holder is not None and any(call.op is each for each in holder._flatten_layers()):
            return
    place: Place | None = getattr(call.op, "place", None)
    for group in made.groups:
        [axis] = group.axes
        number = target[axis] if axis < len(target) else -1
        if number is None or number == -1:
            continue
        labels = group.compact().ravel()
        if isinstance(number, Size) and _follows(flow, rules, number, labels):
            continue
        source, counted = _factor(flow, number, labels)
        if place is not None and id(place.layer) in rules.telling and rules.repairs:
            _, shares = rules.told.setdefault((id(place.layer), place.number), (place.layer, {}))
            shares[axis] = labels
        elif source is not None and rules.repairs and id(source.owner) not in rules.telling:
            _counts(flow, rules, source, counted)
        else:
            if place is not None and not flow.labels.is_fixed(labels).all():
                rules.wanting.add(id(place.layer))
            flow.fix(labels, "it has their number written down")


def _factor(flow: Flow, number: Any, labels: Array) -> tuple[Source | None, Array]:
    """Return the attribute by which labels are counted, and the labels that it counts.

    Of 2 heads with 3 channels each, `heads * size` counts 1 1 1 2 2 2 by heads and 1 2 3 1 2 3 by
    the size of each.
    """
    if (source := source_of(number)) is not None:
        return source, labels
    roots = flow.labels.find(labels)
    sources = [*number.sources] if isinstance(number, Size) else []
    fitting = [(each, each.value) for each in sources if each.value]
    for source, count in fitting:
        if not len(labels) % count:
            outer = roots.reshape(count, -1)
            if (outer == outer[:, :1]).all():
                return source, outer[:, 0]
    for source, count in reversed(fitting):
        if not len(labels) % count:
            inner = roots.reshape(-1, count)
            if (inner == inner[:1]).all():
                return source, inner[0]
    return None, labels


def _counts(flow: Flow, rules: Rules, source: Source, labels: Array) -> None:
    """An attribute has to say how many of some labels there are."""
    key = (id(source.owner), str(source.place))
    _, known = rules.counted.setdefault(key, (source.owner, labels))
    if len(known) != len(labels):
        why = f"{source.owner.name!r} counts others by its attribute {source.place!r} as well"
        flow.fix(known, why)
        flow.fix(labels, why)
        return
    flow.labels.tie(known, labels)


def _follows(flow: Flow, rules: Rules, number: Size, labels: Array) -> bool:
    """Whether a number, such as heads times the size of each, shrinks as what it is made of."""
    find = flow.labels.find
    for source in number.sources:
        known = _counted_by(flow, rules, source)
        if known is not None and len(labels) % len(known) == 0:
            times = len(labels) // len(known)
            for expected in (np.repeat(known, times), np.tile(known, times)):
                if np.array_equal(find(expected), find(labels)):
                    return True
    return False


def _counted_by(flow: Flow, rules: Rules, source: Source) -> Array | None:
    """The labels of which an attribute, or an axis of a tensor, says how many there are."""
    if isinstance(source.place, str):
        return rules.counted.get((id(source.owner), source.place), (None, None))[1]
    place = rules.recorded.places.get(id(source.owner))
    value = None if place is None else flow.values.get(place)
    group = None if value is None else value.group_at(source.place)
    return None if group is None else group.compact().ravel()
