"""What the small model must compute: the big one with the removed slices at zero.

A norm that runs over removed indices is taken over the live ones only, in the big model too:
that is what a pruned norm means. Everything else is the big model's own arithmetic.
"""

import mmap
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import ref as weakref

import numpy as np
import torch
from torch import nn

from prune_core.masking.slices import covers_zeros
from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.parts import places
from prune_speedup.torch.proof.following import Told
from prune_speedup.torch.proof.matching import Matching, tells_the_same
from prune_speedup.torch.record.by_module import ModuleFollower
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.record.operators import Operator, operator_of
from prune_speedup.torch.rules import has_rule

__all__ = ["Masked", "Meaning", "zero_already"]

Note = Callable[[Operator, str, Told, Any, Call | None], None]


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


class Masked(ModuleFollower):  # type: ignore[no-untyped-call]
    """Shows masked tensors to the operators that a model calls, each made when it is read.

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
        note: Note | None = None,
        start: int = 0,
        already: Collection[str] = (),
        *,
        by_place: bool = False,
    ) -> None:
        """Run `model` as it was before anything was removed.

        Args:
            model: The model.
            plan: What was removed.
            meant: What counts as masked.
            decisions: What the forward is to see where it decides something.
            note: Told of every call, if anybody is: its operator, the module that was running,
                its arguments, the result, and the recorded call that it is.
            start: The first of the recorded calls that this run should make.
            already: The names of masks that change nothing: see `zero_already`.
            by_place: See `Matching`.
        """
        super().__init__(model, has_rule, decisions)
        self._note = note
        self._plan = plan
        self._matching = Matching(plan, start, by_place=by_place)
        self._matched: Call | None = None
        self._by_place = by_place
        self._origins: dict[int, tuple[weakref[torch.Tensor], int]] = {}
        self.spread: dict[str, float] = {}
        calls = plan.labelling.graph.calls
        self._live = {
            id(calls[position])
            for position, labels in plan.labelling.flow.live_norms
            if plan.removed[labels].any() and not plan.removed[labels].all()
        }
        self._named = named_tensors(model, every_name=True)
        self._meant = meant
        self._written: set[int] = set()
        self._masks: dict[int, list[torch.Tensor]] = defaultdict(list)
        for name in meant.masks.keys() - already:
            mask = meant.masks[name]
            self._masks[id(self._named[name])].append(mask)
        self._gone: dict[int, dict[int, torch.Tensor]] = {}
        graph = plan.labelling.graph
        self._own = {name: value for value, names in graph.tensors.items() for name in names}
        for value in graph.parameters if meant.removed else ():
            self._gone[id(self._named[graph.tensors[value][0]])] = {
                axis: _others(kept, graph.metas[value].shape[axis])
                for axis, kept in plan.kept(value).items()
            }

    @property
    def in_step(self) -> bool:
        """Whether all calls so far were those of the recording."""
        return self._matching.in_step

    @property
    def found_all(self) -> bool:
        """Whether each call of the recording was made, and read the same tensors of the model."""
        return self._matching.found_all

    def as_small(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What a tensor that is kept, or returned in a cache, is in the small model."""
        origin, made = self._own.get(name), self._origin(tensor)
        kept = self._plan.kept(origin) if origin is not None else {}
        if name in self._meant.masks:
            tensor = tensor * self._meant.masks[name].to(tensor.device, tensor.dtype)
        elif origin is None and made is not None:
            kept = self._plan.kept_of_value(made)
        for axis, indices in kept.items():
            if axis < tensor.ndim and int(indices.max()) < tensor.shape[axis]:
                tensor = tensor.index_select(axis, places(indices, tensor.device))
        return tensor

    def follow(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and know which recorded one it is."""
        goes_on = partial(self._goes_on, args=args, kwargs=kwargs)
        self._matched = matched = self._matching.find(self.module, operator.target, goes_on)
        if self._by_place and matched is not None:
            same = self._reads_its_own(matched, args, kwargs) and tells_the_same(
                matched, args, kwargs
            )
            self._matching.elsewhere = self._matching.elsewhere or not same
        return super().follow(operator, args, kwargs)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        if self._masks or self._gone:
            # What a forward does to a parameter in place, it does to that, not to a product.
            self._written = {id(tensor) for tensor in operator_of(func).written(args, kwargs)}
            args, kwargs = self._masked(args), self._masked(kwargs)
            self._written = set()
        before = self._matched
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

    def followed(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Tell of a call what it has made in the masked model."""
        recorded = self._matched
        if recorded is not None:
            made = result if isinstance(result, list | tuple) else (result,)
            for tensor, value in zip(made, recorded.outputs, strict=False):
                if value is not None and isinstance(tensor, torch.Tensor):
                    self._origins[id(tensor)] = weakref(tensor), value
        elif operator.name in _PASSING_ON:
            self._pass_on(args, kwargs, result)
        if "batch_norm" in operator.name:
            self._note_spread(operator, args, kwargs, result)
        if self._note is not None:
            shown = self._masked(result) if self._masks or self._gone else result
            self._note(operator, self.module, (args, kwargs), shown, recorded)

    def _note_spread(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        mean, inverse_deviations = operator.argument("running_mean", args, kwargs), result[2]
        if mean is None or not inverse_deviations.numel():
            return
        least = float(inverse_deviations.min())
        momentum = operator.argument("momentum", args, kwargs)
        share = momentum or operator.argument("exponential_average_factor", args, kwargs) or 0.0
        for name in self._names.get(id(mean), ()) if least > 0 else ():
            self.spread[name] = max(self.spread.get(name, 0.0), share / least)

    def _reads_its_own(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call reads the model's own tensors that the recorded one has read."""
        if not (own := self._reads[id(call)]):
            return True
        given = [*args, *kwargs.values()]
        lists = [each for each in given if isinstance(each, (list, tuple))]
        return own <= {*map(id, given), *map(id, chain(*lists))}

    def _goes_on(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call is given the results that the recorded one was given, as far as is known.

        It may be another at the same place: of `[relu(y) for y in branches]` without the first.
        """
        if len(args) != len(call.args):
            return False
        before = [*call.args, *(call.kwargs.get(name) for name in kwargs)]
        own = self._plan.labelling.graph.tensors
        for told, now in zip(before, [*args, *kwargs.values()], strict=True):
            if isinstance(told, Ref) and told.index not in own:
                if not isinstance(now, torch.Tensor) or self._origin(now) != told.index:
                    return False
            elif isinstance(told, (list, tuple)) and any(isinstance(each, Ref) for each in told):
                return False
        return self._reads_its_own(call, args, kwargs)

    @cached_property
    def _reads(self) -> dict[int, set[int]]:
        """The identities of the model's own tensors that a recorded call reads, by that of it."""
        graph = self._plan.labelling.graph
        own = {value: id(self._named[names[0]]) for value, names in graph.tensors.items()}
        return {id(call): {own[i] for i in call.inputs() if i in own} for call in graph.calls}

    @cached_property
    def _names(self) -> dict[int, list[str]]:
        """The names of a tensor of the model, by its identity."""
        names = defaultdict(list)
        for name, tensor in self._named.items():
            names[id(tensor)].append(name)
        return names

    def _origin(self, tensor: torch.Tensor) -> int | None:
        """The recorded value that a tensor is."""
        found = self._origins.get(id(tensor))
        # Another tensor may have got the identity of one that is gone.
        return found[1] if found is not None and found[0]() is tensor else None

    def _pass_on(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Know what a new cache holds: the example may keep none, and joins nothing to nothing."""
        given = [tensor for _, tensor in tensors_in((args, kwargs)) if tensor.numel()]
        origin = self._origin(given[0]) if len(given) == 1 else None
        if origin is not None and given[0].shape == result.shape:
            self._origins[id(result)] = weakref(result), origin

    def _masked(self, tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            if id(tree) in self._written:
                return tree
            masks, gone = self._masks.get(id(tree), ()), self._gone.get(id(tree), {})
            for mask in masks:
                tree = _times(tree, mask)
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


_LARGE = 1 << 20


def _times(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A tensor with its mask multiplied in; a large one in memory that goes back at once.

    In a heap, each would leave a hole, where small things settle before the next one comes.
    """
    steps = mask.stride()  # of whole rows, one value of each will do
    mask = mask[tuple([slice(None) if step else slice(0, 1) for step in steps])]
    mask = mask.to(tensor.device, tensor.dtype)
    if not tensor.is_cpu or tensor.nbytes < _LARGE or not tensor.is_contiguous():
        return tensor * mask
    memory = torch.frombuffer(mmap.mmap(-1, tensor.nbytes), dtype=tensor.dtype)
    return torch.mul(tensor, mask, out=memory.view(tensor.shape))


def _others(kept: Array, size: int) -> torch.Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(size), kept))
