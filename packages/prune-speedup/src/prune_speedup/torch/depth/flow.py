"""Residual branches, found in the calls of a recorded forward.

A branch is what nobody would need if one side of an addition were zero, where both sides come from
the same value:

    y = x + f(norm(x))         the branch is f and norm
    y = shortcut(x) + g(x)     there are two, shortcut and g
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from prune_speedup.engine.graph import Graph, Ref
from prune_speedup.torch.record.source_places import key_of

__all__ = ["Addition", "Branch", "Flow"]


@dataclass(frozen=True, slots=True)
class Addition:
    """Where a branch is added, told so that it is found again in another forward.

    Attributes:
        module: The innermost module that was running.
        operator: The operator's name.
        place: Where in the model's source the addition stands.
        occurrence: Which of the additions that stand there it is.
        side: Which of its two arguments the branch is.
    """

    module: str
    operator: str
    place: tuple[Any, ...]
    occurrence: int
    side: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A residual branch.

    Attributes:
        addition: Where it is added.
        calls: The positions of the calls that nobody else needs, in their order.
        direct: Whether the other side of the addition is the value itself that the branch reads.
        weighted: Whether a parameter is read in it.
    """

    addition: Addition
    calls: tuple[int, ...]
    direct: bool
    weighted: bool


class Flow:
    """Who makes and who reads each value."""

    def __init__(self, graph: Graph) -> None:
        self._calls = graph.calls[: graph.first]
        self._metas, self._weights = graph.metas, graph.parameters
        self._maker: dict[int, int] = {}
        self._readers: dict[int, list[int]] = defaultdict(list)
        for position, call in enumerate(self._calls):
            for value in call.outputs:
                if value is not None:
                    self._maker[value] = position
            for value in set(call.inputs()):
                self._readers[value].append(position)
        self._given = {value for value in graph.inputs if graph.metas[value].real}
        self._needed = {*graph.outputs, *graph.kept, *graph.written, *graph.left}
        self.idle: set[int] = set()
        """The calls whose results nobody reads, such as those that fill a cache."""
        for position in range(len(self._calls) - 1, -1, -1):
            if self._is_needless(position, self.idle):
                self.idle.add(position)

    def _is_needless(self, position: int, found: set[int], but: tuple[int, int] = (-1, -1)) -> bool:
        """Whether only calls that are needless themselves read what a call makes.

        Args:
            position: The call.
            found: Those that are known to be needless.
            but: A call and a value that it reads, which does not count.
        """
        made = [each for each in self._calls[position].outputs if each is not None]
        return all(
            each not in self._needed
            and all(r in found or r in self.idle or (r, each) == but for r in self._readers[each])
            for each in made
        )

    def fork(self, left: int, right: int) -> int | None:
        """Return the last value that both of two values come from, either of them included.

        Parameters are none, nor is what is no real number, such as positions and masks.
        """
        sides = {left: 1, right: 2}
        waiting = [(-self._maker.get(value, -1), value) for value in sides]
        waiting.sort()
        while waiting:
            _, value = heappop(waiting)
            maker = self._maker.get(value)
            computed = maker is not None or value in self._given
            if sides[value] == 3 and computed and self._metas[value].real:
                return value
            for before in () if maker is None else set(self._calls[maker].inputs()):
                if before not in sides:
                    heappush(waiting, (-self._maker.get(before, -1), before))
                sides[before] = sides.get(before, 0) | sides[value]
        return None

    def needless(self, value: int, at: int) -> set[int]:
        """Return the calls that nobody needs if the call `at` does not read a value."""
        found: set[int] = set()
        waiting: list[int] = []
        known: set[int] = set()

        def push(value: int) -> None:
            maker = self._maker.get(value)
            if maker is not None and maker not in known:
                known.add(maker)
                heappush(waiting, -maker)

        push(value)
        while waiting:
            position = -heappop(waiting)
            call = self._calls[position]
            if self._is_needless(position, found, (at, value)):
                found.add(position)
                for each in call.inputs():
                    push(each)
        return found

    def branches(self) -> Iterator[Branch]:
        """Yield the residual branches of the first run, in its order."""
        counts: Counter[tuple[Any, ...]] = Counter()
        for position, call in enumerate(self._calls):
            if call.name not in ("add", "add_"):
                continue
            key = call.module, call.name, key_of(call.place)
            occurrence = counts[key]
            counts[key] += 1
            sides = call.args[:2]
            if not all(isinstance(side, Ref) for side in sides):
                continue
            values = [side.index for side in sides]
            shapes = {self._metas[value].shape for value in values}
            if values[0] == values[1] or len(shapes) > 1 or not self._metas[values[0]].real:
                continue
            fork = self.fork(*values)
            if fork is None:
                continue
            for side in (0, 1):
                if fork != values[side]:
                    calls = self.needless(values[side], position)
                    addition = Addition(*key, occurrence, side)
                    direct = fork == values[1 - side]
                    yield Branch(addition, tuple(sorted(calls)), direct, self._reads_weights(calls))

    def _reads_weights(self, calls: set[int]) -> bool:
        return any(not self._weights.isdisjoint(self._calls[at].inputs()) for at in calls)
