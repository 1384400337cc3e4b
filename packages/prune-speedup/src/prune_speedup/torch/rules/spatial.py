"""Pooling and resampling: each channel for itself, the other axes as a whole.

h (8, 4 channels, 6, 6)        axis 1:  1 2 3 4    axes 2 and 3:  fixed, a window slides there
max_pool2d(h, 2)  (8, 4, 3, 3) axis 1:  1 2 3 4
"""

from collections.abc import Sequence
from re import search

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import CONSTANT, UNKNOWN, Group, Value, at_first, expanded
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.max_pool1d")
@rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d", "aten.mkldnn_max_pool2d")
@rule("aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d", "aten.adaptive_avg_pool2d")
@rule("aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d", "aten.max_pool2d", "aten.max_pool3d")
@rule("aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d")
@rule("aten._upsample_nearest_exact1d", "aten._upsample_nearest_exact2d", "aten.upsample_linear1d")
@rule("aten._upsample_nearest_exact3d", "aten.upsample_trilinear3d", "aten.upsample_bilinear2d")
@rule("aten.upsample_bicubic2d", "aten._upsample_bicubic2d_aa", "aten._upsample_bilinear2d_aa")
def windows(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A window of numbers of one channel becomes one number of that channel."""
    value = flow.get(call.args[0])
    found = search(r"([123])d", call.name)
    slid = _slid(call, value.ndim - int(found.group(1) if found else 2), value.ndim)
    flow.pin_all(value, slid, "a window slides along it")
    made = [
        None if output is None else _resized(value, set(slid), flow.result_shape(call, at))
        for at, output in enumerate(call.outputs)
    ]
    if "avg_pool" in call.name and _counts_padding(call):
        made = [each and each.at_least(CONSTANT) for each in made]
    # What is returned second says where the first was found.
    return [each and (each.never_zero() if at else each) for at, each in enumerate(made)]


def _counts_padding(call: Call) -> bool:
    """Whether an average of windows takes what is beyond the edge for zeros."""
    padding = call.argument("padding") or 0
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    return padded or call.argument("divisor_override") is not None


def _slid(call: Call, first: int, end: int) -> list[int]:
    """The axes that a window slides along: not those along which it is one wide and goes by one."""
    axes = list(range(first, end))
    if "pool" not in call.name or "adaptive" in call.name:
        return axes
    wide, by, pad = (_each(call, position, len(axes)) for position in (1, 2, 3))
    still = [(w, b or w, p or 0) == (1, 1, 0) for w, b, p in zip(wide, by, pad, strict=True)]
    return [axis for axis, stays in zip(axes, still, strict=True) if not stays]


def _each(call: Call, position: int, count: int) -> list[int | None]:
    """An argument that has one number for each axis, or one for all, or none."""
    given = call.args[position] if len(call.args) > position else []
    return list(given) * count if len(given) == 1 else list(given) or [None] * count


@rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpool(flow: Flow, call: Call) -> Value:
    """Each number goes back to the place that its pooling found it at; the others are zero."""
    value, found = flow.get(call.args[0]), flow.get(call.args[1])
    slid = set(range(value.ndim - int(call.name[-2]), value.ndim))
    flow.pin_all(value, sorted(slid), "a window slides along it")
    flow.pin_all(found, sorted(slid), "a window slides along it")
    tied = flow.align([value, found], value.shape, lambda flags: flags[0])
    return _resized(tied, slid, flow.result_shape(call)).at_least(CONSTANT)


@rule("aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample(flow: Flow, call: Call) -> Value:
    """Channels are sampled at places that something else says."""
    value, grid = flow.get(call.args[0]), flow.get(call.args[1])
    slid = set(range(2, value.ndim))
    flow.pin_all(value, sorted(slid), "it is sampled along it")
    flow.fix_value(grid, "it says where to sample")
    return _resized(value, slid, flow.result_shape(call)).at_least(UNKNOWN)


def _resized(value: Value, slid: set[int], shape: tuple[int, ...]) -> Value:
    groups = []
    for group in value.groups:
        made = Group(expanded(at_first(group.only(set(group.axes) - slid).codes, slid), shape))
        if made.axes:
            groups.append(made)
    return Value(shape, tuple(groups), value.free - slid)
