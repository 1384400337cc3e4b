"""What only moves data is run, as it is, on labels instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import keras
import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.operand import operand
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.sizes import Size, source_of

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@rule("Flatten", "Reshape", wide=True)
def reshape(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Other axes for the same values."""
    [source], [result] = call.inputs, call.outputs
    flow = analysis.flow(source)
    if call.kind == "Reshape":
        return _reshaped(analysis, call)
    if flow.more or getattr(call.op, "data_format", "") == "channels_first":
        return None
    before, after = source.shape[1:], result.shape[1:]
    if None in before or None in after or not before or not after:
        return None
    if prod(before) != prod(after):  # Samples become something else, or it becomes samples.
        return None
    moved = np.reshape(_spread(flow.labels, flow.axis, before), after)
    axis = _varying(moved)
    if axis is None:
        return None
    constants = _spread(flow.constants, flow.axis, before).reshape(after)
    line = tuple(slice(None) if a == axis else 0 for a in range(len(after)))
    return [Flow(moved[line], constants[line], axis - len(after))]


@rule("Permute", "Transpose", "Moveaxis", "Swapaxes", "ExpandDims", "Squeeze", wide=True)
def permute(analysis: Analysis, call: Call) -> list[Flow] | None:
    """The same places, along axes in another order."""
    moved = _moved(analysis, call)
    if moved is None or len(moved) != 1:
        return None
    return _if_whole(analysis, call, moved)


@rule("Repeat", "RepeatVector", "BroadcastTo", "Tile", wide=True)
def repeat(analysis: Analysis, call: Call) -> list[Flow] | None:
    """The same values at more places; how often is the same for any number of channels."""
    moved = _moved(analysis, call)
    if moved is None:
        return None
    if call.kind == "BroadcastTo":
        for _, part in moved[0]:
            _written(analysis, call, part, call.op.shape)
    if call.kind in ("BroadcastTo", "Tile"):
        return _if_whole(analysis, call, moved)
    return [analysis.made(call.outputs[0], [part for _, part in moved[0]])]


@rule("Split", wide=True)
def split(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Parts of equal size, which have to stay equal: what goes from one goes from each."""
    moved = _moved(analysis, call)
    if moved is None:
        return None
    if not isinstance(call.op.indices_or_sections, int):
        return _if_whole(analysis, call, moved)
    axis = call.op.axis % len(call.inputs[0].shape) - len(call.inputs[0].shape)
    along = [part for parts in moved for _, part in parts if part.axis == axis]
    for part in along[1:]:
        analysis.labels.tie(along[0].labels, part.labels)
    return [
        analysis.made(output, [part for _, part in parts])
        for output, parts in zip(call.outputs, moved, strict=True)
    ]


@rule("GetItem", "Take", "Flip", "Roll", "Unstack", wide=True)
def pick(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Some of the places, or all of them in another order; the axes that are left whole may go."""
    if call.kind == "Take":
        return _taken(analysis, call)
    moved = _moved(analysis, call)
    return None if moved is None else _if_whole(analysis, call, moved)


def _taken(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`table[indices]`, as of an embedding: what lies along the other axes of the table."""
    table, indices, *_ = call.arguments[0]
    axis, source = call.op.axis, operand(analysis, table)
    rank = len(source.shape)
    if not isinstance(axis, int) or not hasattr(indices, "shape"):
        return None
    axis = axis % rank - rank
    parts = []
    for part in source.parts.values():
        if part.axis == axis:
            analysis.labels.fix(part.labels, f"{call.op.name!r} picks from them")
        elif part.axis > axis:
            parts.append(part)
        else:
            parts.append(replace(part, axis=part.axis + 1 - len(indices.shape)))
    for part in operand(analysis, indices).parts.values():
        analysis.labels.fix(part.labels, f"{call.op.name!r} picks by them")
    return [analysis.made(call.outputs[0], parts)]


@rule("Pad", wide=True)
def pad(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Zeros around a constant that is not 0 make it vary."""
    flow, rank = analysis.flow(call.inputs[0]), len(call.inputs[0].shape)
    widths = call.op.pad_width
    if len(widths) != rank or call.op.mode != "constant":
        return None
    parts = []
    for part in flow.parts:
        if any(widths[part.axis]):
            analysis.labels.fix(part.labels, f"{call.op.name!r} puts others beside them")
            continue
        still = np.where(part.constants == 0, 0.0, np.nan)
        parts.append(replace(part, constants=still))
    return [analysis.made(call.outputs[0], parts)]


Moved = list[tuple[Flow, Flow]]
"""What was known of an axis, and what is known of the axis that it has become."""


def _reshaped(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Run the reshape on labels; a size that is written down must be one that can be edited."""
    moved = _moved(analysis, call)
    if moved is None:
        return None
    target = getattr(call.op, "target_shape", None)
    target = list(call.op.newshape) if target is None else [None, *target]
    parts = [part for _, part in moved[0]]
    if call.holder is None and len(parts) == 1 and not analysis.is_shared(call.op):
        [part] = parts
        if len(target) >= -part.axis and target[part.axis] != -1:
            analysis.reshaped[id(call.op)] = (part.axis, part.labels)
    elif call.holder is not None and isinstance(call.op, keras.layers.Reshape):
        _remember_shape(analysis, call, parts)
    else:
        for part in parts:
            _written(analysis, call, part, target)
    return [analysis.made(call.outputs[0], parts)]


def _remember_shape(analysis: Analysis, call: Call, parts: Sequence[Flow]) -> None:
    """A layer inside of another keeps the shape in an attribute, which can be edited."""
    shape = tuple(call.op.target_shape)
    if analysis.is_shared(call.op):
        for part in parts:
            _written(analysis, call, part, shape)
        return

    def smaller(plan: Any) -> tuple[int, ...]:
        sizes = list(shape)
        for part in parts:
            if len(sizes) >= -part.axis and sizes[part.axis] != -1:
                sizes[part.axis] = len(plan.kept(part.labels))
        return tuple(sizes)

    analysis.attributes[id(call.op)]["target_shape"] = smaller


def _written(analysis: Analysis, call: Call, part: Flow, shape: Sequence[Any]) -> None:
    """A number in Python code: it follows if it is read from an attribute, and else it stays."""
    if len(shape) < -part.axis or shape[part.axis] in (-1, None):
        return
    number = shape[part.axis]
    source = source_of(number)
    if source is not None and analysis.repairs:
        analysis.counts(source, part.labels)
    elif not (isinstance(number, Size) and _follows(analysis, number, part.labels)):
        analysis.labels.fix(part.labels, f"{call.op.name!r} has their number written down")


def _follows(analysis: Analysis, number: Size, labels: Array) -> bool:
    """Whether a number, such as heads times the size of each, shrinks as what it is made of."""
    for source in number.sources:
        known = analysis.counted_by(source)
        if known is not None and len(labels) % len(known) == 0:
            expected = analysis.labels.find(np.repeat(known, len(labels) // len(known)))
            if np.array_equal(expected, analysis.labels.find(labels)):
                return True
    return False


def _if_whole(analysis: Analysis, call: Call, moved: list[Moved]) -> list[Flow]:
    """Keep what is known where an axis is whole and in order; places that were picked stay."""
    for parts in moved:
        for before, after in parts:
            if not np.array_equal(before.labels, after.labels):
                why = f"{call.op.name!r} ({call.kind}) picks some of them"
                analysis.labels.fix(before.labels, why)
    return [
        analysis.made(output, [part for _, part in parts])
        for output, parts in zip(call.outputs, moved, strict=True)
    ]


def _moved(analysis: Analysis, call: Call) -> list[Moved] | None:
    """Return for each output which axis became which, or None if the call cannot be run.

    What moves the numbers of a tensor moves its labels alike, so the operation itself is asked.
    """
    [source] = call.inputs
    found: list[Moved] = [[] for _ in call.outputs]
    for part in analysis.flow(source).parts:
        places = _run(call, np.arange(len(part.labels)), part.axis)
        if places is None or len(places) != len(call.outputs):
            return None
        lost = set(range(len(part.labels)))
        for at, result in enumerate(places):
            axes = _all_varying(result)
            if not axes:
                continue
            axis = _most(call, axes, result.shape)
            if 0 in axes:  # Samples are made of them.
                return None
            lines = np.moveaxis(result, axis, 0).reshape(result.shape[axis], -1)
            # Where they came to lie along several axes, those of one line go together.
            labels = part.labels[lines]
            analysis.labels.tie(labels[:, :1].repeat(labels.shape[1], 1).ravel(), labels.ravel())
            values = part.constants[lines]
            same = (values == values[:, :1]).all(axis=1)
            after = Flow(labels[:, 0], np.where(same, values[:, 0], np.nan), axis - result.ndim)
            if any(after.axis == other.axis for _, other in found[at]):
                analysis.labels.fix(after.labels, f"{call.op.name!r} mixes two axes")
                continue
            found[at].append((part, after))
            lost -= set(result.ravel().tolist())
        if lost:
            gone = part.labels[sorted(lost)]
            analysis.labels.fix(gone, f"{call.op.name!r} ({call.kind}) leaves them out")
    return found


def _most(call: Call, axes: Sequence[int], shape: Sequence[int]) -> int:
    """Which of several axes may lose places: heads rather than the channels of each."""
    target = list(getattr(call.op, "newshape", ()))
    named = [axis for axis in axes if axis < len(target) and source_of(target[axis]) is not None]
    if named:
        return named[0]
    if len(axes) > 1 and len(call.inputs[0].shape) == 3:
        return axes[0]
    return max(axes, key=lambda axis: shape[axis])


def _run(call: Call, places: Array, axis: int) -> list[Array] | None:
    [source] = call.inputs
    shape = [size or (_SAMPLES if at == 0 else _OPEN) for at, size in enumerate(source.shape)]
    shape[axis] = len(places)
    grid = keras.ops.convert_to_tensor(np.array(_spread(places, axis, shape), np.int32))

    def numbered(given: Any) -> Any:
        return grid if given is source else given

    (args, kwargs), run = keras.tree.map_structure(numbered, call.arguments), call.op.call
    try:
        if None in (getattr(call.op, "newshape", None) or ()):
            # A size that nobody knows, read off a tensor: whatever is left over.
            sizes = [-1 if size is None else int(size) for size in call.op.newshape]
            args, kwargs, run = (grid, sizes), {}, keras.ops.reshape
        results = keras.tree.flatten(run(*args, **kwargs))
    except Exception:  # whatever does not fit the sizes that are open
        return None
    arrays = [np.asarray(keras.ops.convert_to_numpy(each)) for each in results]
    ranks = [len(output.shape) for output in call.outputs]
    return arrays if [array.ndim for array in arrays] == ranks else None


_SAMPLES, _OPEN = 2, 8
"""What stands for sizes that are open, as it does where a layer is entered."""


def _spread(values: Array, axis: int, shape: Sequence[int]) -> Array:
    line = [1] * len(shape)
    line[axis] = -1
    return np.broadcast_to(values.reshape(line), shape)


def _varying(labels: Array) -> int | None:
    """Return the one axis along which labels differ, or None when there are several."""
    axes = _all_varying(labels)
    if len(axes) > 1:
        return None
    return axes[0] if axes else labels.ndim - 1


def _all_varying(labels: Array) -> list[int]:
    return [
        axis
        for axis, size in enumerate(labels.shape)
        if size > 1 and (labels != labels.take([0], axis)).any()
    ]
