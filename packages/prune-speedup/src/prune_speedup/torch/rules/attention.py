"""Fused attention: two contractions with a softmax between them.

Labels of heads before and after, for two heads of queries that share one head of keys and values:

    query (1, 2, T, 4)   axis 1:  a b
    key   (1, 1, S, 4)   axis 1:  c       repeated for both: c c, so a, b and c go together
    made  (1, 2, T, 4)   axis 1:  a b

The width of the values, the last axis, moves on to what is made. That of queries and keys stays,
since the scale is one over its root.
"""

from collections.abc import Sequence

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.values import UNKNOWN, Group, Value, at_first, expanded, squeezed
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten._scaled_dot_product_flash_attention_for_cpu")
@rule("aten._scaled_dot_product_flash_attention", "aten._scaled_dot_product_efficient_attention")
@rule("aten._scaled_dot_product_cudnn_attention", "aten._scaled_dot_product_attention_math")
@rule("aten._scaled_dot_product_fused_attention_overrideable", "aten.scaled_dot_product_attention")
def attention(flow: Flow, call: Call) -> Sequence[Value | None]:
    """Heads go as a whole; the width of a head stays, because the scale is made of it."""
    query, key, value = (flow.get(argument) for argument in call.args[:3])
    flow.pin(query, -1, "the scale of an attention is made of it")
    flow.pin(key, -1, "the scale of an attention is made of it")
    heads = query.shape[1]
    key, made_value = _repeated(key, heads), _repeated(value, heads)
    scores = flow.contract(query, key, "bhtd,bhsd->bhts")
    mask = call.kwargs.get("attn_mask", call.kwargs.get("attn_bias"))
    others = [a for a in (mask, *call.args[3:]) if isinstance(a, Ref)]
    if others:
        scores = flow.align([scores, *map(flow.get, others)], scores.shape, lambda _: False)
    flow.pin(scores, -1, "a softmax runs along it")
    scores.groups = tuple(
        g.only(set(g.axes) - {3}).with_states(UNKNOWN) for g in scores.groups if set(g.axes) - {3}
    )
    made = flow.contract(scores, made_value, "bhts,bhsv->bhtv")
    rest = [None if index is None else Value(flow.metas[index].shape) for index in call.outputs[1:]]
    return [made, *rest]


def _repeated(value: Value, heads: int) -> Value:
    """Key or value heads, each as often as there are query heads that share it."""
    times = heads // value.shape[1]
    if times == 1:
        return value
    shape = (value.shape[0], heads, *value.shape[2:])
    groups = tuple(
        Group(squeezed(group.codes.repeat(times, 1)))
        if 1 in group.axes
        else Group(expanded(at_first(group.codes, (1,)), shape))
        for group in value.groups
    )
    return Value(shape, groups, value.free - {1})
