"""Tensors made from nothing, and what only reads a shape.

`zeros(8, 4)` has no labels: all of its axes are free, which means as long as its neighbours need
them. So `cat([h, zeros(8, 4)], 1)` may lose channels of either. `arange(4)` is another number at
each place and belongs to no parameter: its axis is fixed.
"""

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.values import UNIFORM, UNKNOWN, ZERO, Value
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []

_ZEROS = ("zeros", "new_zeros", "zeros_like", "zero", "zero_")
_RANDOM = ("bernoulli", "bernoulli_", "rand_like", "randn_like")


@rule("aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.scalar_tensor")
@rule("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty")
@rule("aten.empty_strided", "aten.new_empty_strided")
def uniform(flow: Flow, call: Call) -> Value:
    """The same number everywhere: it can be as long as its neighbours need it."""
    shape = flow.result_shape(call)
    free = frozenset(axis for axis, size in enumerate(shape) if size > 1)
    return Value(shape, (), free, zero=call.name in _ZEROS)


@rule("aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like", "aten.fill")
@rule("aten.zero", "aten.bernoulli", "aten.rand_like", "aten.randn_like")
def alike(flow: Flow, call: Call) -> Value:
    """Numbers of its own in the shape of another."""
    value = flow.get(call.args[0])
    state = _filled_with(flow, call)
    groups = tuple(group.with_states(state) for group in value.groups)
    shape = flow.result_shape(call)
    fresh = frozenset() if call.name in _RANDOM else frozenset(range(len(shape)))
    grouped = {axis for group in groups for axis in group.axes}
    return Value(shape, groups, (fresh | value.free) - grouped, zero=state == ZERO)


def _filled_with(flow: Flow, call: Call) -> int:
    if call.name in _ZEROS:
        return ZERO
    if call.name in (*_RANDOM, "empty_like"):
        return UNKNOWN
    number = call.argument("value")
    return flow.get(number).state if isinstance(number, Ref) else UNIFORM


@rule("aten.arange", "aten.linspace", "aten.eye", "aten.rand", "aten.randn", "aten.randint")
@rule("aten.tril_indices", "aten.triu_indices", "aten.randperm")
@rule("aten._local_scalar_dense", "aten.is_same_size", "aten._assert_async", "aten.sym_size")
@rule("aten._assert_tensor_metadata", "aten._assert_scalar", "aten.hann_window")
def fixed(flow: Flow, call: Call) -> list[Value | None]:
    """Something that differs from place to place and belongs to no parameter."""
    for index in call.inputs():
        if call.name == "_local_scalar_dense":
            flow.fix_value(flow.values[index], "its number is read by Python")
    return [None if index is None else Value(flow.metas[index].shape) for index in call.outputs]
