"""What the small model must compute: the big one with the removed slices at zero.

A norm that runs over removed indices is taken over the live ones only, in the big model too:
that is what a pruned norm means. Everything else is the big model's own arithmetic.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from prune_core.masking.slices import covers_zeros
from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.proof.matching import Matching
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.operators import operator_of
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import places

__all__ = ["Masked", "Meaning", "zero_already"]


class Meaning(NamedTuple):
    """What counts as masked.

    Attributes:
        masks: `{tensor name: bool mask}`.
        removed: Whether everything that the plan removes counts as well, because that is what was
            asked for. Otherwise the masks alone do, and the plan has to answer to them.
    """

    masks: Mapping[str, torch.Tensor]
    removed: bool


def zero_already(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> set[str]:
    """The names of masks that cover nothing but zeros, as all do once a pruner has unwrapped.

    Multiplying by them makes the same numbers again, at every call that reads the tensor.
    """
    named = named_tensors(model, every_name=True)
    return {
        name
        for name, mask in masks.items()
        if covers_zeros(mask.to(named[name].device), named[name].detach())
    }


class Masked(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that shows masked tensors to the operators, each made when it is read.

    So there is never more than one masked copy of a tensor in memory, and none of the model.

    Attributes:
        spread: What batch norms in training have added to the means that they keep, if they had
            added the deviation instead, by the name of the mean. Where a layer reads what another
            batch norm has centred, the mean itself is zero, and what is kept of it is rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        meant: Meaning,
        decisions: Decisions | None = None,
        note: Callable[[Call, Any, Call | None], None] | None = None,
        start: int = 0,
        already: Collection[str] = (),
    ) -> None:
        """Run `model` as it was before anything was removed.

        Args:
            model: The model.
            plan: What was removed.
            meant: What counts as masked.
            decisions: What the forward is to see where it decides something.
            note: Told of every call with its result, and of the recorded call that it is.
            start: The first of the recorded calls that this run should make.
            already: The names of masks that change nothing: see `zero_already`.
        """
        super().__init__(model, has_rule, decisions=decisions, located=False)
        self._note = note
        self._plan = plan
        self._matching = Matching(plan, start)
        self._matched: Call | None = None
        self._origins: dict[int, int] = {}
        self.spread: dict[str, float] = {}
        calls = plan.labelling.graph.calls
        self._live = {
            id(calls[position])
            for position, labels in plan.labelling.flow.live_norms
            if plan.removed[labels].any() and not plan.removed[labels].all()
        }
        named = named_tensors(model, every_name=True)
        self._meant = meant
        self._written: set[int] = set()
        self._masks: dict[int, list[torch.Tensor]] = defaultdict(list)
        for name in meant.masks.keys() - already:
            mask = meant.masks[name]
            self._masks[id(named[name])].append(mask)
        self._gone: dict[int, dict[int, torch.Tensor]] = {}
        graph = plan.labelling.graph
        self._own = {name: value for value, names in graph.tensors.items() for name in names}
        for value in graph.parameters if meant.removed else ():
            self._gone[id(named[graph.tensors[value][0]])] = {
                axis: _others(kept, graph.metas[value].shape[axis])
                for axis, kept in plan.kept(value).items()
            }

    def as_small(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What a tensor that is kept, or returned in a cache, is in the small model."""
        origin = self._own.get(name)
        kept = self._plan.kept(origin) if origin is not None else {}
        if name in self._meant.masks:
            tensor = tensor * self._meant.masks[name].to(tensor.device, tensor.dtype)
        index = self._numbers.get(tensor)
        if origin is None and index in self._origins:
            kept = self._plan.kept_of_value(self._origins[index])
        for axis, indices in kept.items():
            if axis < tensor.ndim and int(indices.max()) < tensor.shape[axis]:
                tensor = tensor.index_select(axis, places(indices, tensor.device))
        return tensor

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        if self._masks or self._gone:
            # What a forward does to a parameter in place, it does to that, not to a product.
            self._written = {id(tensor) for tensor in operator_of(func).written(args, kwargs)}
            args, kwargs = self._masked(args), self._masked(kwargs)
            self._written = set()
        before = self._matching.find(len(self.graph.calls), self.module, func)
        self._matched = before
        if before is None or id(before) not in self._live:
            return super().execute(func, args, kwargs)
        cut_args = list(self._cut(before.args, args))
        if before.name in ("native_layer_norm", "_fused_rms_norm"):
            cut_args[1] = list(cut_args[0].shape[-len(cut_args[1]) :])
        if before.name == "native_group_norm":
            cut_args[4] = cut_args[0].shape[1]
        small = super().execute(func, tuple(cut_args), self._cut(before.kwargs, kwargs))
        many = isinstance(small, list | tuple)
        results = [
            self._grown(before, at, result) for at, result in enumerate(small if many else [small])
        ]
        return tuple(results) if many else results[0]

    def watched(self, call: Call, result: Any) -> None:
        """Tell of a call what it has made in the masked model."""
        if self._note is None:
            return
        recorded = self._matched
        if recorded is not None:
            pairs = zip(call.outputs, recorded.outputs, strict=False)
            self._origins |= {new: old for new, old in pairs if None not in (new, old)}  # type: ignore[misc]
        elif call.name in _PASSING_ON:
            self._pass_on(call)
        if "batch_norm" in call.name:
            self._note_spread(call, result)
        shown = self._masked(result) if self._masks or self._gone else result
        self._note(call, shown, recorded)

    def _note_spread(self, call: Call, result: Any) -> None:
        mean, inverse_deviations = call.argument("running_mean"), result[2]
        if not isinstance(mean, Ref) or not inverse_deviations.numel():
            return
        least = float(inverse_deviations.min())
        share = call.argument("momentum") or call.argument("exponential_average_factor") or 0.0
        for name in self.graph.tensors.get(mean.index, ()) if least > 0 else ():
            self.spread[name] = max(self.spread.get(name, 0.0), share / least)

    def _pass_on(self, call: Call) -> None:
        """Know what a new cache holds: the example may keep none, and joins nothing to nothing."""
        metas = self.graph.metas
        given = [value for value in call.inputs() if prod(metas[value].shape)]
        made = call.outputs[0]
        if made is not None and len(given) == 1 and metas[given[0]].shape == metas[made].shape:
            origin = self._origins.get(given[0])
            if origin is not None:
                self._origins[made] = origin

    def _masked(self, tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            if id(tree) in self._written:
                return tree
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
            more = [None] * (len(now) - len(before))
            return type(now)(self._cut(a, b) for a, b in zip([*before, *more], now, strict=False))
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


_PASSING_ON = {"cat", "clone", "alias", "detach"}
"""Operators whose result may be one of their operands, and nothing else."""


def _others(kept: Array, size: int) -> torch.Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(size), kept))
