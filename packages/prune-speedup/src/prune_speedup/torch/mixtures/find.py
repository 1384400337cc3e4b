"""Find the mixtures of experts of a model in the recording of its forward.

A mixture is known by what it does, not by what it is called. A layer makes a number for each of E
things (`router`); something is decided along that axis, by `topk`, `argmax`, `softmax` or
`sigmoid`; and near by there are E slices of a tensor that are read one at a time, or E modules of
one kind. What is found is only used after a proof, so a likeness that means nothing does no harm.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from prune_core.masking import bare
from prune_speedup.engine.graph import Call, Graph, Ref
from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.heads import Head, Heads, Place
from prune_speedup.torch.mixtures.mixture import Experts, Groups, Mixture

__all__ = ["experts", "find"]

_CHOICES = frozenset({"topk", "argmax", "max", "sort", "argsort"})
_WEIGHTS = frozenset({"_softmax", "softmax", "sigmoid", "_log_softmax"})
_SELECTS = frozenset(
    {"select", "index", "index_select", "gather", "unbind", "split", "split_with_sizes", "slice"}
    | {"embedding", "_grouped_mm", "grouped_mm_fallback", "bmm", "baddbmm", "narrow"}
)
"""Operators that read the slices of a tensor one at a time, or each for itself."""


def experts(model: nn.Module, example_inputs: Any) -> Experts:
    """Find the mixtures of experts of a model.

    Args:
        model: Any module; it is run once, in eval mode, and left as it was.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        The mixtures. None is no error.
    """
    with bare(model) as plain:
        return Experts(tuple(find(plain, analysis_of(plain, example_inputs).graph)))


def find(model: nn.Module, graph: Graph) -> list[Mixture]:
    """Find the mixtures in what was recorded of a model."""
    finder = _Finder(model, graph)
    claimed: dict[Place | str, tuple[int, Head]] = {}
    scopes: dict[str, tuple[str, list[Place], list[str]]] = {}
    for router in finder.routers():
        scope, tensors, lists = finder.storage(router)
        scopes[router.weight[0]] = scope, tensors, lists
        depth = len(scope.split("."))
        held: list[Place | str] = [*tensors, *lists]
        for place in held:
            # Where two could be the router of the same experts, the nearer one is.
            if place not in claimed or claimed[place][0] < depth:
                claimed[place] = depth, router
    routers = list({id(router): router for _, router in claimed.values()}.values())
    return [finder.mixture(r, *scopes[r.weight[0]]) for r in sorted(routers, key=lambda r: r.at)]


class _Finder(Heads):
    def routers(self) -> list[Head]:
        """What could be the router of a mixture: layers with a decision along their outputs."""
        found: dict[str, Head] = {}
        for at, call in enumerate(self._calls):
            if call.name not in _CHOICES | _WEIGHTS or not call.inputs():
                continue
            value = call.inputs()[0]
            shape = self._graph.metas[value].shape
            axes = range(len(shape)) if call.name == "sigmoid" else [_axis(call)]
            for size in {shape[axis] for axis in axes if shape and shape[axis] > 1}:
                for router in self.behind(value, size):
                    known = found.setdefault(router.weight[0], router)
                    known.decisions.append(at)
                    known.between |= router.between
                    known.corrections += [
                        place for place in router.corrections if place not in known.corrections
                    ]
        return list(found.values())

    def storage(self, router: Head) -> tuple[str, list[Place], list[str]]:
        """The innermost module around a decision that has experts, and where these are."""
        # A loss that balances the load decides once more, outside.
        scope = self._calls[min(router.decisions)].module
        while True:
            tensors, lists = self._tensors(router, scope), self._lists(router, scope)
            if tensors or lists or not scope:
                return scope, tensors, lists
            scope = scope.rpartition(".")[0]

    def _tensors(self, router: Head, scope: str) -> list[Place]:
        """The tensors with a slice for each expert, read one at a time or each for itself."""
        found: dict[Place, None] = {}
        own = {name for name, _ in (*router.places, *router.corrections)}
        for call in self._calls[router.at :]:
            if not _within(call.module, scope) or call.name not in _SELECTS:
                continue
            for value, axis in _selected(call):
                place = self.traced(value, axis)
                if place is None or place[0] in own or not _within(place[0], scope):
                    continue
                if self._shapes[place[0]][place[1]] == router.size:
                    found[place] = None
        # What all experts read at once, such as one product for all of them, lies beside the rest.
        for name, axis in list(found):
            holder = name.rpartition(".")[0]
            for other, shape in self._shapes.items():
                beside = other.rpartition(".")[0] == holder and other not in own
                if beside and len(shape) > max(axis, 1) and shape[axis] == router.size:
                    found.setdefault((other, axis), None)
        return list(found)

    def _lists(self, router: Head, scope: str) -> list[str]:
        return [
            name
            for name, module in self._modules.items()
            if _within(name, scope)
            and not _within(router.module, name)
            and not any(_within(place, name) for place, _ in router.places)
            and isinstance(module, nn.ModuleList | nn.ModuleDict)
            and len(module) == router.size
            and _are_alike(list(module.children()))
            and any(_within(call.module, name) for call in self._calls[router.at :])
        ]

    def mixture(self, router: Head, scope: str, tensors: list[Place], lists: list[str]) -> Mixture:
        """Put together what was found."""
        held = {name for name, _ in tensors}
        return Mixture(
            scope,
            router.size,
            self._top_k(router),
            self._groups(router),
            tuple(router.places),
            tuple(place for place in router.corrections if place[0] not in held),
            tuple(tensors),
            tuple(lists),
        )

    def _top_k(self, router: Head) -> int | None:
        """How many experts are chosen; one for each `argmax` over all of them."""
        ways: dict[str, int] = defaultdict(int)
        for at in sorted(set(router.decisions)):
            call = self._calls[at]
            if call.name == "topk":
                ways["topk"] = max(ways["topk"], int(call.argument("k")))
            elif call.name in ("argmax", "max"):
                ways[call.name] += 1
            elif call.name in ("sort", "argsort"):
                ways["sort"] = 1
        return max(ways.values(), default=None)

    def _groups(self, router: Head) -> Groups | None:
        """A view of the experts as groups, along which something is chosen as well."""
        for call in self._calls[router.at :]:
            inputs, outputs = call.inputs(), call.outputs
            if call.name not in ("view", "_unsafe_view", "unflatten") or not outputs:
                continue
            if inputs[0] not in router.between or outputs[0] is None:
                continue
            before, after = (self._graph.metas[v].shape for v in (inputs[0], outputs[0]))
            if before[-1] != router.size or len(after) != len(before) + 1:
                continue
            count, each = after[-2:]
            if count * each != router.size or after[:-2] != before[:-1]:
                continue
            chosen, looked_at = count, 1
            for later in self._calls[self._made_by[outputs[0]] :]:
                if later.name != "topk" or later.module != call.module:
                    continue
                size = self._graph.metas[later.inputs()[0]].shape
                if size == after:
                    looked_at = int(later.argument("k"))
                elif size == after[:-1]:
                    chosen = int(later.argument("k"))
            return Groups(count, chosen, looked_at)
        return None


def _axis(call: Call) -> int:
    """The axis along which a decision is made."""
    axis = call.argument("dim")
    return axis if isinstance(axis, int) else -1


def _selected(call: Call) -> list[tuple[int, int]]:
    """The values that a call reads slice by slice, and along which axis."""
    first, *others = call.inputs() or [-1]
    if call.name in ("_grouped_mm", "grouped_mm_fallback"):
        return [(others[0], 0)]
    if call.name in ("bmm", "baddbmm"):
        return [(value, 0) for value in (first, *others)]
    if call.name == "index":
        places = [at for at, place in enumerate(call.args[1]) if isinstance(place, Ref)]
        return [(first, places[0])] if len(places) == 1 else []
    axis = call.argument("dim")
    return [(first, axis if isinstance(axis, int) else 0)]


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


def _are_alike(modules: list[nn.Module]) -> bool:
    kinds = {
        (type(module), tuple(tuple(each.shape) for each in module.parameters()))
        for module in modules
    }
    return len(kinds) == 1 and any(True for _ in modules[0].parameters())
