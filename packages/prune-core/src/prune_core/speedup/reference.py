"""What the small model must compute: the big one with the removed slices at zero.

A norm that runs over removed indices is taken over the live ones only, in the big model too:
that is what a pruned norm means. Everything else is the big model's own arithmetic.
"""

from typing import Any

import torch
from torch import nn

from prune_core.graph.ir import Call, Ref
from prune_core.graph.rules import has_rule
from prune_core.graph.trace import Recorder
from prune_core.speedup.plan import Plan

__all__ = ["masked_outputs"]


def masked_outputs(model: nn.Module, example_inputs: Any, plan: Plan) -> Any:
    """Run a model whose tensors are masked, with its norms over live indices."""
    live = {
        position
        for position, labels in plan.labelling.flow.live_norms
        if plan.removed[labels].any() and not plan.removed[labels].all()
    }
    return _LiveNorms(model, plan, live).run(example_inputs)


class _LiveNorms(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that runs some of the calls on the live slices of what they are given."""

    def __init__(self, model: nn.Module, plan: Plan, live: set[int]) -> None:
        super().__init__(model, has_rule)
        self._plan = plan
        self._live = live

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        position = len(self.graph.calls)
        if position not in self._live:
            return func(*args, **kwargs)
        before = self._plan.labelling.graph.calls[position]
        cut_args = list(self._cut(before.args, args))
        if before.name in ("native_layer_norm", "_fused_rms_norm"):
            cut_args[1] = list(cut_args[0].shape[-len(cut_args[1]) :])
        if before.name == "native_group_norm":
            cut_args[4] = cut_args[0].shape[1]
        small = func(*cut_args, **self._cut(before.kwargs, kwargs))
        many = isinstance(small, list | tuple)
        results = [
            self._grown(before, at, result) for at, result in enumerate(small if many else [small])
        ]
        return tuple(results) if many else results[0]

    def _cut(self, before: Any, now: Any) -> Any:
        if isinstance(before, Ref):
            for axis, indices in self._plan.kept_of_value(before.index).items():
                now = now.index_select(axis, indices.to(now.device))
            return now
        if isinstance(before, dict):
            return {name: self._cut(item, now[name]) for name, item in before.items()}
        if isinstance(before, list | tuple):
            return type(now)(self._cut(a, b) for a, b in zip(before, now, strict=True))
        return now

    def _grown(self, before: Call, at: int, result: Any) -> Any:
        index = before.outputs[at] if at < len(before.outputs) else None
        if index is None or not isinstance(result, torch.Tensor):
            return result
        for axis, indices in self._plan.kept_of_value(index).items():
            size = self._plan.labelling.graph.metas[index].shape[axis]
            shape = [*result.shape[:axis], size, *result.shape[axis + 1 :]]
            grown = result.new_zeros(shape)
            result = grown.index_copy(axis, indices.to(result.device), result)
        return result
