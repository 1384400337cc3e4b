"""Compute what a forward has put aside while nothing was computed.

A table in a cache that is no part of the model outlives the recording that made it:

    @lru_cache
    def table(length): return self.positions(torch.arange(length))

It would be a blank for good, so it is filled by making the recorded calls again, with numbers.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from prune_speedup.engine.graph import ALIAS_WRITE, Graph, Ref
from prune_speedup.torch.record.operators import operator_of

__all__ = ["fill"]


def fill(graph: Graph, given: Mapping[int, torch.Tensor], kept: Mapping[int, torch.Tensor]) -> None:
    """Put numbers into tensors that were recorded without them.

    A call that fails with numbers ends it; the model will fail there as well.

    Args:
        graph: The recording.
        given: The values that no call has made, by their numbers.
        kept: What is to be filled, by the numbers of their values.
    """
    values: dict[Any, Any] = dict(given)
    with torch.no_grad(), suppress(Exception):
        for call in graph.calls:
            args, kwargs = _with_values((call.args, call.kwargs), values)
            if call.target is ALIAS_WRITE:
                made = args[0]  # it sees in its own memory what was written there
            else:
                made = call.target(*args, **kwargs)
                if operator_of(call.target).is_empty:
                    made.zero_()
            items = made if isinstance(made, list | tuple) else (made,)
            values.update(zip(call.outputs, items, strict=True))
    for index, tensor in kept.items():
        if index in values:
            tensor.data = values[index]


def _with_values(tree: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(tree, Ref):
        return values[tree.index]
    if isinstance(tree, list | tuple):
        return type(tree)(_with_values(item, values) for item in tree)
    if isinstance(tree, dict):
        return {name: _with_values(item, values) for name, item in tree.items()}
    return tree
