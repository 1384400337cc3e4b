"""The search for numbers of a config with which a model of given shapes is built."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count, zip_longest
from math import inf

from prune_speedup.torch.model_config.build import Shapes
from prune_speedup.torch.model_config.numbers import Keys, Values

__all__ = ["Search", "candidates_of"]

Axis = tuple[str, int]
Make = Callable[[Values], Shapes]
"""The shapes of a model that is built with these values; sizes that make no model raise."""


def candidates_of(old: Values, before: Shapes, after: Shapes) -> dict[Keys, list[int]]:
    """Return what each integer may have become: it shrank as an axis that it divides has shrunk."""
    changes = {
        (was, now)
        for name, shape in before.items()
        for was, now in zip(shape, after[name], strict=True)
        if was != now
    }
    candidates: dict[Keys, list[int]] = {}
    for path, value in old.items():
        found = {
            value * now // was
            for was, now in changes
            if value > 1 and was % value == 0 and value * now % was == 0
        }
        if found:
            candidates[path] = sorted(found)
    return candidates


class Search:
    """The values of a config with which a model of given shapes is built.

    Attributes:
        nearest: Where the best values still fail, for people.
        refusal: Why other values make no model at all.
    """

    def __init__(
        self,
        old: Values,
        make: Make,
        before: Shapes,
        after: Shapes,
        *,
        base: Values,
        builds: int,
    ) -> None:
        """Search among what the integers `old` of a config may have become, beside a `base`."""
        self._make = make
        self._base, self._builds = base, builds
        self._before = before
        self._after = after
        self._candidates = candidates_of(old, before, after)
        self._order = count()
        self._queue: list[tuple[int, int, int, dict[Keys, int]]] = []
        self._tried: set[frozenset[tuple[Keys, int]]] = {frozenset()}
        self._least: float = inf
        self.nearest = self.refusal = ""

    def fitting(self) -> Iterator[dict[Keys, int]]:
        """Find values, the likeliest first."""
        wrong = self._push({}, self._before)
        useless: set[tuple[Keys, int]] = set()
        while self._queue:
            amount, _, _, values = heappop(self._queue)
            if not useless.isdisjoint(values.items()):
                continue
            if not amount:
                yield {**self._base, **values}
            mended: list[tuple[set[Axis], Keys, int]] = []
            for path, news in self._candidates.items():
                for new in news if path not in values else ():
                    if (path, new) in useless:
                        continue
                    left = self._attempt({**values, path: new})
                    if left is None or values:
                        continue
                    if left < wrong:
                        mended.append((wrong - left, path, new))
                    elif left > wrong:
                        useless.add((path, new))
            # What a single change mends hints at how many go together; the finest pieces first.
            together: dict[Keys, int] = {}
            done: set[Axis] = set()
            for axes, path, new in sorted(mended, key=lambda piece: len(piece[0])):
                if path not in together and not axes & done:
                    together[path] = new
                    done |= axes
            self._attempt(together)

    def _attempt(self, values: dict[Keys, int]) -> set[Axis] | None:
        """What is still wrong with these values; None if they were tried or make no model."""
        if (key := frozenset(values.items())) in self._tried or len(self._tried) > self._builds:
            return None
        self._tried.add(key)
        try:
            shapes = self._make({**self._base, **values})
        except Exception as error:
            # Sizes that do not go together are refused in as many ways as there are libraries.
            self.refusal = " ".join(str(error).split())
            return None
        return self._push(values, shapes)

    def _push(self, values: dict[Keys, int], shapes: Shapes) -> set[Axis]:
        wrong = _wrong(shapes, self._after)
        heappush(self._queue, (len(wrong), len(values), next(self._order), values))
        if 0 < len(wrong) < self._least:
            self._least = len(wrong)
            name, _ = min(wrong)
            self.nearest = f"{name!r} would be {shapes.get(name)}, and is {self._after.get(name)}"
        return wrong


def _wrong(shapes: Shapes, wanted: Shapes) -> set[Axis]:
    """The axes of which a model and the one that is wanted differ in length."""
    return {
        (name, axis)
        for name in shapes.keys() | wanted.keys()
        for axis, (have, want) in enumerate(zip_longest(shapes.get(name, ()), wanted.get(name, ())))
        if have != want
    }
