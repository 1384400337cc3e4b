"""Values one behind the other along an axis, and groups that came to lie in one axis.

a (8, 2)   axis 1:  1 2        b (8, 3)   axis 1:  3 4 5
a, b along axis 1:  1 2 3 4 5
a, a along axis 1:  1 2 1 2      no label is lost, and each goes from both
"""

from collections.abc import Sequence

import numpy as np

from prune_speedup.engine.flow import Flow, constant
from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import (
    CONSTANT,
    UNKNOWN,
    Group,
    Value,
    at_first,
    encode,
    expanded,
    extended,
    squeezed,
)

__all__ = ["apart", "join", "thinned"]

_STAYS = int(encode(np.zeros(1, dtype=np.int64), UNKNOWN)[0])


def join(flow: Flow, pieces: Sequence[Value], axis: int, shape: tuple[int, ...]) -> Value:
    """Concatenate values along an axis."""
    across: list[Value] = []
    along: list[Group | None] = []
    for piece in pieces:
        group = piece.group_at(axis)
        along.append(group)
        others = tuple(other for other in piece.groups if other is not group)
        across.append(thinned(piece, axis, others))
    # A group that runs along other axes as well can only be kept whole if every piece has it.
    mixed = {other for group in along if group for other in group.axes} - {axis}
    if mixed and any(group is None or not mixed <= set(group.axes) for group in along):
        for at, (piece, group) in enumerate(zip(pieces, along, strict=True)):
            if group is not None and len(group.axes) > 1:
                flow.pin(piece, axis, "it is joined to something that has no such parts")
                kept = group.only(set(group.axes) - {axis})
                one = Group(at_first(kept.codes, (axis,)))
                across[at] = Value(across[at].shape, (*across[at].groups, one), across[at].free)
                along[at] = None
    thin = tuple(1 if at == axis else size for at, size in enumerate(shape))
    made = flow.align(across, thin, all).at_least(CONSTANT)
    groups = [
        group.at(group.axes[0], shape)
        if len(group.axes) == 1
        else Group(extended(group.codes, shape))
        for group in made.groups
    ]
    if any(group is not None for group in along):
        groups.append(_concatenated(pieces, along, axis, shape))
    free = made.free - {axis}
    return Value(shape, apart(flow, groups), free)


def thinned(piece: Value, axis: int, groups: tuple[Group, ...]) -> Value:
    """A value of length one along an axis, with those of its groups that do not vary there."""
    shape = tuple(1 if at == axis else size for at, size in enumerate(piece.shape))
    thin = [
        group.at(group.axes[0], shape)
        if len(group.axes) == 1 and axis not in group.axes
        else Group(at_first(group.codes, (axis,)))
        for group in groups
    ]
    return Value(shape, tuple(thin), piece.free - {axis}, piece.constant, zero=piece.zero)


def _concatenated(
    pieces: Sequence[Value], along: Sequence[Group | None], axis: int, shape: tuple[int, ...]
) -> Group:
    if all(group is None or group.axes == (axis,) for group in along):
        return _in_line(pieces, along, axis, shape)
    varying = {at for group in along if group for at in group.axes} - {axis}
    parts = []
    for piece, group in zip(pieces, along, strict=True):
        sizes = [shape[at] if at in varying else 1 for at in range(len(shape))]
        sizes[axis] = piece.shape[axis]
        if group is None:
            parts.append(np.full(sizes, _STAYS))
        else:
            parts.append(at_first(group.codes, [at for at, size in enumerate(sizes) if size == 1]))
    made = Group(squeezed(expanded(np.concatenate(parts, axis), shape)))
    # A label that several pieces have stands for a number of each piece's own.
    return made if _distinct(parts) else made.at_least(CONSTANT)


def _in_line(
    pieces: Sequence[Value], along: Sequence[Group | None], axis: int, shape: tuple[int, ...]
) -> Group:
    """Groups of the axis alone, one behind the other."""
    sizes = [piece.shape[axis] for piece in pieces]
    lines = [
        constant(size) if group is None else group.line
        for size, group in zip(sizes, along, strict=True)
    ]
    known = [UNKNOWN if group is None else group.known for group in along]
    states: Array | int
    if all(isinstance(each, int) and each == known[0] for each in known):
        states = known[0]
    else:
        each = zip(sizes, known, strict=True)
        states = np.concatenate(
            [np.full(size, one) if isinstance(one, int) else one for size, one in each]
        )
    made = Group.along(axis, np.concatenate(lines), states, shape)
    if made.line[0] == made.line[-1]:
        made = Group(squeezed(made.codes))
    weaker = made.at_least(CONSTANT)
    # A label that several pieces have stands for a number of each piece's own.
    return made if weaker is made or _distinct(lines) else weaker


def _distinct(parts: Sequence[Array]) -> bool:
    """Whether no two of these have a label in common."""
    each = [np.unique(part) for part in parts]
    return len(np.unique(np.concatenate(each))) == sum(map(len, each))


def apart(flow: Flow, groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups that share no axis: where two met in one axis, the finer one stays removable.

    A group that has come to differ along no axis is the whole of the value, and stays.
    """
    for group in groups:
        if not group.axes:
            flow.fix(group.compact(), "it is all there is of a value")
    ranked = [group for group in groups if group.axes]
    if len(ranked) > 1:
        ranked.sort(key=lambda group: (not flow.owned(group.line), -len(group.line)))
    kept: list[Group] = []
    for group in ranked:
        if any(set(group.axes) & set(other.axes) for other in kept):
            flow.fix(group.compact(), "two kinds of indices are folded into one axis")
        else:
            kept.append(group)
            if len(group.axes) > 1:
                flow.rectangles.append(group.compact())
    return tuple(kept)
