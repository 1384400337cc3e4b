"""Find the vocabularies of a model in the recording of its forward.

A table is a tensor whose rows are looked up by whole numbers that come from the inputs as they are,
without arithmetic: so positions, which a model counts, are no tokens. A head is the last layer
behind an output, or behind a loss, if it makes a number for each row of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prune_core.masking import bare
from prune_speedup.engine.graph import Call, Graph, Ref
from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.heads import Heads, Place
from prune_speedup.torch.record.inputs import arguments, tensors_in
from prune_speedup.torch.vocabulary.vocabulary import Vocabularies, Vocabulary

__all__ = ["find", "vocabularies"]

_LOOKUPS = frozenset({"embedding", "index_select", "_embedding_bag", "_embedding_bag_forward_only"})
_LOSSES = frozenset({"nll_loss_forward", "nll_loss2d_forward", "gather"})
"""What reads the number of one token, as a label says."""

_ARITHMETIC = frozenset(
    {"add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "floor_divide", "sum"}
    | {"remainder", "cumsum", "cumsum_", "argmax", "max", "min", "topk", "bucketize"}
)
"""What makes other numbers of numbers, and not a selection of them."""


def vocabularies(model: nn.Module, example_inputs: Any) -> Vocabularies:
    """Find the vocabularies of a model.

    Args:
        model: Any module; it is run once, in eval mode, and left as it was.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        The vocabularies. None is no error.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
        >>> print(vocabularies(model, torch.tensor([[1, 2]])))
        0: 10 tokens, read from argument 0
        ├── tables: 0.weight[0]
        └── heads: 1.weight[0], 1.bias[0]
    """
    with bare(model) as plain:
        return Vocabularies(
            tuple(find(plain, analysis_of(plain, example_inputs).graph, example_inputs))
        )


def find(model: nn.Module, graph: Graph, example_inputs: Any) -> list[Vocabulary]:
    """Find the vocabularies in what was recorded of a model."""
    return [group.vocabulary() for group in _Finder(model, graph, example_inputs).groups()]


@dataclass(slots=True)
class _Group:
    """Tables that are looked up by the same ids, and the layers that make a number for each."""

    size: int
    at: int
    tables: dict[Place, None] = field(default_factory=dict)
    heads: dict[Place, None] = field(default_factory=dict)
    corrections: dict[Place, None] = field(default_factory=dict)
    inputs: dict[str, None] = field(default_factory=dict)

    def vocabulary(self) -> Vocabulary:
        first, _ = next(iter(self.tables))
        name = first.removesuffix(".weight") if "." in first else first
        corrections = [place for place in self.corrections if place not in self.heads]
        return Vocabulary(
            name,
            self.size,
            tuple(self.tables),
            tuple(self.heads),
            tuple(corrections),
            tuple(self.inputs),
        )


class _Finder(Heads):
    def __init__(self, model: nn.Module, graph: Graph, example_inputs: Any) -> None:
        super().__init__(model, graph)
        paths = [path for path, _ in tensors_in(arguments(example_inputs))]
        self._inputs: dict[int, list[str]] = {}
        for value, path in zip(graph.inputs, paths, strict=False):
            self._inputs.setdefault(value, []).append(path)

    def groups(self) -> list[_Group]:
        """What is looked up by ids, and the heads that go with it."""
        found: list[_Group] = []
        for at, call in enumerate(self._calls):
            lookup = self._looked_up(call)
            if lookup is None:
                continue
            table, size, inputs = lookup
            same = [
                group
                for group in found
                if group.size == size
                and (table in group.tables or not group.inputs.keys().isdisjoint(inputs))
            ]
            group = same[0] if same else _Group(size, at)
            if not same:
                found.append(group)
            group.tables[table] = None
            group.inputs |= dict.fromkeys(inputs)
        for size in {group.size for group in found}:
            self._add_heads([group for group in found if group.size == size], size)
        return found

    def _looked_up(self, call: Call) -> tuple[Place, int, list[str]] | None:
        if call.name == "index":  # table[ids]
            places = [place for place in call.args[1] if isinstance(place, Ref)]
            first = bool(call.args[1]) and isinstance(call.args[1][0], Ref)
            if len(places) != 1 or not first:
                return None
            table, ids = call.inputs()[0], places[0].index
        elif call.name in _LOOKUPS and (call.name != "index_select" or call.argument("dim") == 0):
            table, ids = call.inputs()[:2]
        else:
            return None
        place = self.traced(table, 0)
        inputs = list(self._sources(ids))
        if place is None or not inputs:
            return None
        return place, self._shapes[place[0]][place[1]], inputs

    def _sources(self, value: int) -> Iterator[str]:
        """The inputs that whole numbers come from, if only chosen and moved about."""
        waiting, seen = [value], {value}
        while waiting:
            value = waiting.pop()
            if value in self._inputs:
                if self._counts(value):
                    yield from self._inputs[value]
                continue
            at = self._made_by.get(value)
            if at is None or self._graph.calls[at].name in _ARITHMETIC or not self._counts(value):
                continue
            for other in self._graph.calls[at].inputs():
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)

    def _counts(self, value: int) -> bool:
        meta = self._graph.metas[value]
        return not meta.real and not str(meta.dtype).endswith("bool")

    def _add_heads(self, groups: list[_Group], size: int) -> None:
        """Give the layers that make so many numbers to the tables that they belong to."""
        ends: list[tuple[int, int | None]] = [(value, None) for value in self._graph.outputs]
        ends += [
            (call.inputs()[0], call.inputs()[1])
            for call in self._calls
            if call.name in _LOSSES and len(call.inputs()) > 1
        ]
        for value, labels in ends:
            if size not in self._graph.metas[value].shape:
                continue
            for head in self.behind(value, size):
                if head.at >= len(self._calls):
                    continue
                tied = [each for each in groups if not each.tables.keys().isdisjoint(head.places)]
                earlier = [group for group in groups if group.at < head.at] or groups
                group = (tied or earlier)[-1]
                group.heads |= dict.fromkeys(reversed(head.places))
                group.corrections |= dict.fromkeys(head.corrections)
                if labels is not None:
                    group.inputs |= dict.fromkeys(self._sources(labels))
