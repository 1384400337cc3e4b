"""Find for a call of another run the recorded call that it is.

As long as a run makes the calls of the recording, they are matched one by one. Where it makes
others, because it trains, say, or takes more steps, a call is known by its module, its operator
and its place in the source. Where a place makes several, as a linear layer views what it is given
and what it makes, the order tells them apart, if it is given the results of the recorded calls.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.source_places import key_of, place_of_call

__all__ = ["Matching", "tells_the_same"]


class Matching:
    """The calls of a recording, to be found again during one run.

    Attributes:
        in_step: Whether all calls so far were the recorded ones, in their order.
        elsewhere: Whether one was taken for a recorded one that may be another.
    """

    def __init__(self, plan: Plan, start: int = 0, *, by_place: bool = False) -> None:
        """Begin before a call of the recording.

        Args:
            plan: That of the recording.
            start: Where in it.
            by_place: Whether a call counts as found only at the place of the recorded one. A model
                that trains may make the same calls by other code.
        """
        self.in_step = True
        self._plan, self._by_place = plan, by_place
        recorded = plan.labelling.graph.calls
        self._calls = [each for each in recorded if not isinstance(each.target, str)]
        self._next = sum(not isinstance(each.target, str) for each in recorded[:start])
        self._since = self._next
        self.elsewhere = False
        self._found_since: set[int] = set()
        self._agree: dict[Any, bool] = {}

    def find(self, module: str, target: Any, goes_on: Callable[[Call], bool]) -> Call | None:
        """The recorded call that the next call is; `None` where it cannot be told.

        It is asked for every call, in their order, while the call is being made.

        Args:
            module: The name of the module that is running.
            target: The operator.
            goes_on: Whether it is given what a recorded call was given.
        """
        if self.in_step:
            at = self._next
            if at < len(self._calls) and (known := self._calls[at]).target == target:
                self._next = self._since = at + 1
                if self._by_place:
                    place = key_of(place_of_call())
                    same = _key(known) == (module, target, place)
                    self.elsewhere = self.elsewhere or not same
                return known
            self.in_step = False
        found = self._one_of((module, target, key_of(place_of_call())), goes_on)
        if found is None:
            return None
        self._found_since.add(found)
        self._next = found + 1
        return self._calls[found]

    @property
    def found_all(self) -> bool:
        """Whether each call of the recording was made, and was known to be that one."""
        waiting = range(self._since, len(self._calls))
        return not self.elsewhere and all(at in self._found_since for at in waiting)

    def _one_of(self, key: Any, goes_on: Callable[[Call], bool]) -> int | None:
        """Which call of a place it is: any, if all of them lose the same, or the next one."""
        places = self._by_key.get(key, ())
        if key not in self._agree:
            several = places if len(places) > 1 else ()
            losses = [self._loss(self._calls[at]) for at in several]
            self._agree[key] = all(loss == losses[0] for loss in losses)
        if places and self._agree[key]:
            return next((at for at in places if at >= self._next), places[0])
        is_next = self._next in places and goes_on(self._calls[self._next])
        return self._next if is_next else None

    @cached_property
    def _keys(self) -> Sequence[Any]:
        return [_key(call) for call in self._calls]

    @cached_property
    def _by_key(self) -> dict[Any, list[int]]:
        by_key = defaultdict(list)
        for at, key in enumerate(self._keys):
            by_key[key].append(at)
        return by_key

    def _loss(self, call: Call) -> list[Any]:
        values = [*call.inputs(), *(index for index in call.outputs if index is not None)]
        return [
            {axis: kept.tolist() for axis, kept in self._plan.kept_of_value(value).items()}
            for value in values
        ]


def _key(call: Call) -> tuple[str, Any, Any]:
    """What a recorded call is known by."""
    return call.module, call.target, key_of(call.place)


_BY_INPUT = frozenset({"view", "_unsafe_view", "expand", "native_group_norm", "as_strided_"})
"""Operators that are told sizes of what they are given, of which the forward need not know. The
last one is told by torch itself, as it takes means of channels that are last in memory."""

_BY_MODE = frozenset({"training", "momentum"})


def tells_the_same(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call that is made is told the numbers that the recorded one was told.

    Of a norm that trains, it is told that.
    """
    if call.name in _BY_INPUT:
        return True
    if len(args) != len(call.args) or kwargs.keys() != call.kwargs.keys():
        return False
    for name, before, now in zip(call.positions, call.args, args, strict=False):  # are in order
        if type(before) is not Ref and name not in _BY_MODE and not _is_same(before, now):
            return False
    return all(name in _BY_MODE or _is_same(call.kwargs[name], now) for name, now in kwargs.items())


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(before, Ref):
        return isinstance(now, Tensor)
    if isinstance(before, (list, tuple)):
        alike = isinstance(now, (list, tuple)) and len(before) == len(now)
        return alike and all(map(_is_same, before, now))
    return type(before) is type(now) and bool(before == now)
