"""Layers that make a number for each of so many things, found behind a value of a recording.

Such a layer is the router of a mixture of experts, which makes a number for each expert, or the
head of a language model, which makes one for each token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from prune_speedup.engine.graph import Call, Graph

__all__ = ["CONTRACTIONS", "Head", "Heads", "Place"]

Place = tuple[str, int]
"""A tensor by its name, and an axis of it."""

CONTRACTIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution", "linear", "mv", "addmv"})
"""Operators that sum over an axis of a parameter."""


@dataclass(slots=True)
class Head:
    """A layer that makes a number for each of some things, and what is decided by them."""

    at: int
    module: str
    weight: Place
    size: int
    places: list[Place]
    corrections: list[Place] = field(default_factory=list)
    decisions: list[int] = field(default_factory=list)
    between: set[int] = field(default_factory=set)


class Heads:
    """What was recorded of a model, to look for such layers in.

    Args:
        model: The model.
        graph: What was recorded of it.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self._graph = graph
        self._modules = dict(model.named_modules())
        self._calls = graph.calls[: graph.first]
        self._made_by = {
            value: at
            for at, call in enumerate(graph.calls)
            for value in call.outputs
            if value is not None
        }
        self._shapes = {names[0]: graph.metas[v].shape for v, names in graph.tensors.items()}
        self._names = {value: frozenset(names[:1]) for value, names in graph.tensors.items()}
        self._note_what_is_made_of_tensors_alone()

    def _note_what_is_made_of_tensors_alone(self) -> None:
        """A weight that is turned, cast or normalised is still known by its name."""
        for call in self._graph.calls:
            inputs = call.inputs()
            if inputs and all(value in self._names for value in inputs):
                names = frozenset().union(*(self._names[value] for value in inputs))
                for value in call.outputs:
                    if value is not None and value not in self._graph.tensors:
                        self._names[value] = names

    def behind(self, value: int, size: int) -> Iterator[Head]:
        """The layers whose outputs, one for each of `size` things, lead to a value."""
        waiting, seen, corrections = [value], {value}, list[Place]()
        linear: Call | None = None
        while waiting:
            at = self._made_by.get(waiting.pop())
            if at is None:
                continue
            call = self._graph.calls[at]
            if call.name in CONTRACTIONS:
                places = self._summed(call, size)
                if places and linear is None:
                    linear = call
                    router = Head(at, call.module, places[-1], size, places)
                continue
            names = [n for v in call.inputs() for n in sorted(self._names.get(v, ()))]
            places = [place for name in names if (place := self._place(name, size)) is not None]
            corrections += [place for place in places if place not in corrections]
            for other in call.inputs():
                has_axis = size in self._graph.metas[other].shape
                if other not in self._names and has_axis and other not in seen:
                    seen.add(other)
                    waiting.append(other)
        if linear is not None:
            router.corrections, router.between = corrections, seen
            yield router

    def _summed(self, call: Call, size: int) -> list[Place]:
        """The tensors that make `size` numbers of whatever comes into a layer.

        A square weight has this size twice; which axis is meant follows from which is summed over.
        """
        operands = [v for v in call.inputs() if v in self._names]
        out = call.outputs[0]
        if len(operands) == len(call.inputs()) or out is None:
            return []
        axis = 1 if call.name == "convolution" else -1
        if self._graph.metas[out].shape[axis] != size:
            return []
        places: list[Place] = []
        for value in operands:
            there = _summed_axis(call, value, len(self._graph.metas[value].shape))
            traced = self.traced(value, there) if there is not None else None
            for name in sorted(self._names[value]):
                place = traced or self._place(name, size)
                if place is not None and self._shapes[place[0]][place[1]] == size:
                    places.append(place)
        # The weight last: `addmm` is given the bias before it, and `linear` behind it.
        return sorted(places, key=lambda place: len(self._shapes[place[0]]))

    def _place(self, name: str, size: int) -> Place | None:
        """Where a tensor has something for each of `size` things."""
        shape = self._shapes[name]
        return (name, shape.index(size)) if size in shape else None

    def traced(self, value: int, axis: int) -> Place | None:
        """Which axis of which tensor an axis of a value is, if only axes have been moved."""
        metas = self._graph.metas
        axis %= max(len(metas[value].shape), 1)
        while value not in self._graph.tensors:
            if value not in self._names or value not in self._made_by:
                return None
            call = self._graph.calls[self._made_by[value]]
            source = call.inputs()[0]
            before, after = metas[source].shape, metas[value].shape
            if call.name in ("t", "transpose", "permute"):
                axis = _order(call, len(before))[axis]
            elif before != after:
                lead = len(before) - len(after)
                if axis < len(before) and before[: axis + 1] == after[: axis + 1]:
                    pass
                elif axis + lead >= 0 and before[axis + lead :] == after[axis:]:
                    axis += lead
                else:
                    return None
            value = source
        return self._graph.tensors[value][0], axis


def _summed_axis(call: Call, value: int, count: int) -> int | None:
    """The axis of an operand that comes out of a contraction, if it is the last one there."""
    if call.name == "convolution":
        return 0
    if call.name in ("mm", "addmm", "bmm", "baddbmm"):
        return count - 1 if value == call.inputs()[-1] or count == 1 else None
    return None


def _order(call: Call, count: int) -> list[int]:
    """Where each axis of the result was before."""
    order = list(range(count))
    if call.name == "permute":
        return [axis % count for axis in call.args[1]]
    one, other = (0, 1) if call.name == "t" else (call.args[1] % count, call.args[2] % count)
    if count > 1:
        order[one], order[other] = order[other], order[one]
    return order
