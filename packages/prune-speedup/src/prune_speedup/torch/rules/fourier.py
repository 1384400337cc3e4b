"""Fourier transforms, and complex numbers as pairs of real ones.

    h (8 channels, 16 times)   axis 0:  1 … 8    axis 1:  9 … 24
    rfft(h, dim=1)  (8, 9)     axis 0:  1 … 8    axis 1:  fixed

Each frequency is made of all times, so no time can go; the channels do not meet.
"""

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import CONSTANT, Group, Value, at_first, expanded
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def transform(flow: Flow, call: Call) -> Value:
    """Everything along an axis makes everything along it; zeros elsewhere stay zeros."""
    value, shape = flow.get(call.args[0]), flow.result_shape(call)
    axes = {axis % value.ndim for axis in call.args[1]}
    flow.pin_all(value, sorted(axes), "a Fourier transform runs along it")
    groups = []
    for group in value.groups:
        thin = at_first(group.only(set(group.axes) - axes).codes, axes)
        groups.append(Group(expanded(thin, shape)).at_least(CONSTANT))
    return Value(shape, tuple(group for group in groups if group.axes), value.free - axes)


@rule("aten.view_as_real", "aten.view_as_real_copy")
def parts(flow: Flow, call: Call) -> Value:
    """The real and the imaginary part along a new last axis."""
    value, shape = flow.get(call.args[0]), flow.result_shape(call)
    groups = (Group(expanded(group.codes[..., None], shape)) for group in value.groups)
    return Value(shape, tuple(group.at_least(CONSTANT) for group in groups))


@rule("aten.view_as_complex", "aten.view_as_complex_copy")
def whole(flow: Flow, call: Call) -> Value:
    """The last axis says which part it is, and both are wanted."""
    value = flow.get(call.args[0])
    last = value.ndim - 1
    flow.pin(value, last, "it tells real from imaginary parts")
    thin = [group.only(set(group.axes) - {last}) for group in value.groups]
    groups = tuple(Group(group.codes[..., 0]) for group in thin if group.axes)
    return Value(value.shape[:last], groups)
