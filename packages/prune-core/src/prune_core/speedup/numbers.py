"""The numbers that a call of torch must be given once its tensors are smaller."""

from prune_core.graph.ir import Call
from prune_core.graph.sites import ARITHMETIC, Number, Site
from prune_core.speedup.plan import Plan

__all__ = ["wanted_numbers"]

_SHAPED = {"view", "_unsafe_view", "reshape", "expand", "new_zeros", "new_ones", "new_full"} | {
    "zeros",
    "ones",
    "full",
    "empty",
    "new_empty",
}
_CUT = {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"}


def wanted_numbers(
    plan: Plan, site: Site | None, position: int, given: tuple[Number, ...]
) -> dict[int, Number]:
    """{position among the given numbers: the number it must be}, of those that must change.

    Args:
        plan: What goes.
        site: A call of torch.
        position: The first recorded call that may belong to it.
        given: The numbers that it was given.
    """
    if site is None:
        return {}
    for call in plan.labelling.graph.calls[position:]:
        if call.site == site and not isinstance(call.target, str):
            found = _for_call(plan, call, given)
            if found:
                return found
    return {}


def _for_call(plan: Plan, call: Call, given: tuple[Number, ...]) -> dict[int, Number]:
    if call.site is not None and call.site.function in ARITHMETIC:
        # A number that is no size, though perhaps made of one: it stays what it was.
        pairs = zip(call.given, given, strict=True) if len(call.given) == len(given) else ()
        return {at: old for at, (old, now) in enumerate(pairs) if old != now}
    index = call.outputs[0]
    if index is None:
        return {}
    before, after = plan.labelling.graph.metas[index].shape, plan.shape(index)
    free = plan.labelling.flow.values[index].free
    if call.name in _SHAPED and len(given) >= len(after):
        sizes = given[: len(after)]
        return {
            at: new
            for at, (size, new) in enumerate(zip(sizes, after, strict=True))
            if size not in (-1, new) and at not in free
        }
    counted = call.site is not None and call.site.function in ("chunk", "tensor_split")
    if call.name in _CUT and before != after and not counted:
        axis = next(
            at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
        )
        pieces = [plan.shape(i)[axis] for i in call.outputs if i is not None]
        listed = call.name.endswith("with_sizes")
        count = len(pieces) if listed else 1
        return {
            at: new
            for at, (size, new) in enumerate(zip(given[:count], pieces, strict=False))
            if size != new
        }
    if call.name == "slice":
        return _for_slice(plan, call, given)
    return {}


def _for_slice(plan: Plan, call: Call, given: tuple[Number, ...]) -> dict[int, Number]:
    value, axis = call.inputs()[0], call.args[1] if len(call.args) > 1 else 0
    size = plan.labelling.graph.metas[value].shape[axis]
    kept = plan.kept_of_value(value).get(axis)
    if kept is None:
        return {}
    changes: dict[Number, Number] = {}
    for bound in call.args[2:4]:
        if bound and 0 < bound < size:
            changes[bound] = int((kept < bound).sum())
    return {at: changes[number] for at, number in enumerate(given) if number in changes}
