"""What the small model must compute: the big one with the removed slices at zero.

A norm that runs over removed indices is taken over the live ones only, in the big model too:
that is what a pruned norm means. Everything else is the big model's own arithmetic.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import places

__all__ = ["Masked", "Meaning", "masked_outputs"]


class Meaning(NamedTuple):
    """What counts as masked.

    Attributes:
        masks: `{tensor name: bool mask}`.
        removed: Whether everything that the plan removes counts as well, because that is what was
            asked for. Otherwise the masks alone do, and the plan has to answer to them.
    """

    masks: Mapping[str, torch.Tensor]
    removed: bool


def masked_outputs(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    meant: Meaning,
    decisions: Decisions | None = None,
) -> tuple[Any, Decisions]:
    """Run a model as its masks mean it, with its norms over live indices; nothing is changed.

    Args:
        model: The model before anything was removed.
        example_inputs: What it is run on.
        plan: What was removed.
        meant: What counts as masked.
        decisions: What it is to see where it decides something.

    Returns:
        What it returns, and what it really saw where it decided something.

    Raises:
        SpeedupError: The forward takes another path than the recorded one, so that the norms
            cannot be told.
    """
    masked = Masked(model, plan, meant, decisions)
    outputs = masked.run(example_inputs)
    if masked.strayed():
        raise SpeedupError(
            "The forward makes other calls than in the example, so it cannot be told which norms "
            "run over live channels; give an example that takes the same path."
        )
    return outputs, masked.graph.decisions


class Masked(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that shows masked tensors to the operators, each made when it is read.

    So there is never more than one masked copy of a tensor in memory, and none of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        meant: Meaning,
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__(model, has_rule, decisions=decisions)
        self._plan = plan
        self._live = {
            position
            for position, labels in plan.labelling.flow.live_norms
            if plan.removed[labels].any() and not plan.removed[labels].all()
        }
        named = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
        self._masks: dict[int, list[torch.Tensor]] = defaultdict(list)
        for name, mask in meant.masks.items():
            self._masks[id(named[name])].append(mask)
        self._gone: dict[int, dict[int, torch.Tensor]] = {}
        graph = plan.labelling.graph
        for value in graph.parameters if meant.removed else ():
            self._gone[id(named[graph.tensors[value][0]])] = {
                axis: _others(kept, graph.metas[value].shape[axis])
                for axis, kept in plan.kept(value).items()
            }

    def strayed(self) -> bool:
        """Whether norms were told by their place among the calls, and the calls were others."""
        recorded = self._plan.labelling.graph
        more = [at for at in (recorded.trained, recorded.opened) if at is not None]
        before = [str(call.target) for call in recorded.calls[: min(more, default=None)]]
        return bool(self._live) and before != [str(call.target) for call in self.graph.calls]

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        args, kwargs = self._masked(args), self._masked(kwargs)
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

    def _masked(self, tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            masks, gone = self._masks.get(id(tree), ()), self._gone.get(id(tree), {})
            for mask in masks:
                tree = tree * mask.to(tree.device, tree.dtype)
            for axis, indices in gone.items():
                tree = tree.index_fill(axis, indices.to(tree.device), 0)
            return tree
        if isinstance(tree, dict):
            return {name: self._masked(item) for name, item in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self._masked(item) for item in tree)
        return tree

    def _cut(self, before: Any, now: Any) -> Any:
        if isinstance(before, Ref):
            for axis, indices in self._plan.kept_of_value(before.index).items():
                now = now.index_select(axis, places(indices, now.device))
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
            result = grown.index_copy(axis, places(indices, result.device), result)
        return result


def _others(kept: Array, size: int) -> torch.Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(size), kept))
