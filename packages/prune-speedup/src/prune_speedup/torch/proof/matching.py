"""Find for a call of another run the recorded call that it is.

As long as a run makes the calls of the recording, they are matched one by one. Where it makes
others, because it trains, say, or takes more steps, a call is known by its module, its operator
and its place in the source.
"""

from collections import defaultdict
from typing import Any

from prune_speedup.engine.graph import Call
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.source_places import key_of, place_of_call

__all__ = ["Matching"]


class Matching:
    """The calls of a recording, to be found again during one run."""

    def __init__(self, plan: Plan, start: int = 0) -> None:
        """Begin before a call of the recording."""
        self.in_step = True
        self._plan = plan
        self._calls = plan.labelling.graph.calls
        self._waiting = [each for each in self._calls[start:] if not isinstance(each.target, str)]
        self._waiting.reverse()
        self._by_key: dict[Any, list[Call]] | None = None
        self._agreed: dict[Any, Call | None] = {}

    def find(self, module: str, target: Any) -> Call | None:
        """The recorded call that the next call is; `None` where it cannot be told.

        It is asked for every call, in their order, while the call is being made.
        """
        if self.in_step:
            if self._waiting and (known := self._waiting.pop()).target == target:
                return known
            self.in_step = False
        key = module, target, key_of(place_of_call())
        if key not in self._agreed:
            self._agreed[key] = self._one_of(key)
        return self._agreed[key]

    def _one_of(self, key: Any) -> Call | None:
        """The calls of a place, if all of them lose the same."""
        if self._by_key is None:
            self._by_key = defaultdict(list)
            for call in self._calls:
                self._by_key[call.module, call.target, key_of(call.place)].append(call)
        calls = self._by_key.get(key, [])
        alike = all(self._loss(calls[0]) == self._loss(other) for other in calls[1:])
        return calls[0] if calls and alike else None

    def _loss(self, call: Call) -> list[Any]:
        values = [*call.inputs(), *(index for index in call.outputs if index is not None)]
        return [
            {axis: kept.tolist() for axis, kept in self._plan.kept_of_value(value).items()}
            for value in values
        ]
