"""Write down the ATen operators that run, and which values they read and make.

Parameters and buffers are known by identity, so a view, a tie or a parametrisation is nothing
special.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import ref as weakref

import torch
from torch import nn

from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import ALIAS_WRITE, Call, Graph, Meta, Ref
from prune_speedup.torch.parts import is_blank
from prune_speedup.torch.record.any_width import noticing_widths
from prune_speedup.torch.record.by_module import ModuleFollower
from prune_speedup.torch.record.call_sites import Rewrite, SiteCounter
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.inputs import found_in, tensors_in
from prune_speedup.torch.record.operators import Operator
from prune_speedup.torch.record.source_places import place_of_call
from prune_speedup.torch.record.without_numbers import (
    Blanks,
    NumbersWantedError,
    has_numbers,
)

__all__ = ["Tape"]

_COPIES = {"detach", "alias", "clone", "_to_copy"}
"""Operators that make the same numbers once more."""

_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})
"""Types of most arguments, in which no tensor is."""


class _Numbers:
    """The number of the value that each living tensor holds, by the tensor's identity.

    A dictionary of torch's own weak references would make one for every question.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref[torch.Tensor], Ref]] = {}

    def ref(self, tensor: torch.Tensor) -> Ref | None:
        """Its number, as it stands among the arguments of calls: one object for all of them."""
        found = self._kept.get(id(tensor))
        # Another tensor may have got the identity of one that is gone.
        return found[1] if found is not None and found[0]() is tensor else None

    def get(self, tensor: torch.Tensor) -> int | None:
        found = self.ref(tensor)
        return None if found is None else found.index

    def set(self, tensor: weakref[torch.Tensor], identity: int, number: int) -> None:
        self._kept[identity] = tensor, Ref(number)

    def living(self) -> dict[int, torch.Tensor]:
        """The tensors that still live, by their numbers."""
        found = ((ref.index, tensor()) for tensor, ref in self._kept.values())
        return {number: tensor for number, tensor in found if tensor is not None}


class Tape(ModuleFollower):  # type: ignore[no-untyped-call]
    """Writes a `Graph` while something runs."""

    def __init__(
        self,
        model: nn.Module,
        known: Callable[[Any], bool],
        watch: Callable[[Any, Call, Any], None] | None = None,
        rewrite: Rewrite | None = None,
        decisions: Decisions | None = None,
        located: bool = True,
        computing: bool = True,
    ) -> None:
        """Learn the names of the model's tensors and modules.

        Args:
            model: What will run.
            known: See `Follower`.
            watch: Called after every call that is recorded, with what the call returned; it may
                raise to stop the forward.
            rewrite: See `SiteCounter`.
            decisions: What the forward is to see where it decides something by numbers.
            located: Whether calls know where in the model's source they stand, and what they were
                told there. Who only compares what they make can do without.
            computing: Whether the numbers are wanted. If not, see `without_numbers`.
        """
        super().__init__(model, known, decisions)
        self._watch = watch
        self.computing = computing
        self.lacking = False
        self._blanks = Blanks()
        self._uncomputed: set[int] = set()
        self._looked_at = 0
        self._outside: set[int] = set()
        self.given: dict[int, torch.Tensor] = {}
        self.graph = Graph()
        self.graph.decisions = self.decided
        self._numbers = _Numbers()
        self._sharing: dict[int, list[weakref[torch.Tensor]]] = defaultdict(list)
        self._located = located
        self._rewrite = rewrite
        self.sites: SiteCounter | None = None
        self._tensors = list(named_tensors(model, every_name=True).items())
        self._names: dict[int, list[str]] = {}
        for name, tensor in self._tensors:
            self._names.setdefault(id(tensor), []).append(name)
        self._parameters = {id(t) for _, t in self._tensors if isinstance(t, nn.Parameter)}

    def number(self, tensor: torch.Tensor) -> int:
        """The value that this tensor holds now; a new one for a tensor never seen."""
        found = self._numbers.get(tensor)
        return self._number_first(tensor) if found is None else found

    def _number_first(self, tensor: torch.Tensor) -> int:
        index = self._bind(tensor)
        if not self.computing:
            self.given[index] = tensor
            if is_blank(tensor):
                self._uncomputed.add(index)
            if tensor.layout is torch.strided:
                self._outside.add(tensor.untyped_storage()._cdata)
        if (names := self._names.get(id(tensor))) is not None:
            self.graph.tensors[index] = tuple(names)
            if id(tensor) in self._parameters:
                self.graph.parameters.add(index)
        return index

    def _bind(self, tensor: torch.Tensor) -> int:
        kind = tensor.dtype
        index = self.graph.add_value(Meta(tuple(tensor.shape), kind, _is_real(kind)))
        itself = weakref(tensor)
        if tensor.layout is torch.strided and self._numbers.ref(tensor) is None:
            self._sharing[tensor.untyped_storage()._cdata].append(itself)
        self._numbers.set(itself, id(tensor), index)
        return index

    def _finish(self, returned: Any) -> None:
        """Note what the model returned and what it never read."""
        found = found_in(returned)
        self.graph.opaque += found.opaque
        for tensor in found.tensors.values():
            self.graph.outputs.append(self.number(tensor))
        read = {name for names in self.graph.tensors.values() for name in names}
        self.graph.unread = [name for name, _ in self._tensors if name not in read]

    def unread_parameters(self) -> bool:
        """Whether there are parameters that nothing has read."""
        unread = {*self.graph.unread}
        return any(id(t) in self._parameters for name, t in self._tensors if name in unread)

    def _note_kept(self) -> None:
        """Note the values that the model keeps: in attributes, and in its own tensors."""
        changed = found_in(self.changed).tensors.values()
        calls = self.graph.calls if changed else ()
        copies = {call.outputs[0]: call.inputs()[0] for call in calls if call.name in _COPIES}
        read = {index for call in calls if call.name not in _COPIES for index in call.inputs()}
        for tensor in changed:
            index = self._numbers.get(tensor)
            if index is None:
                continue
            self.graph.written.append(index)
            seen = {index}
            while index in copies:
                index = copies[index]
                seen.add(index)
            if seen.isdisjoint(read) and seen.isdisjoint(self.graph.outputs):
                self.graph.kept += seen
        for _, tensor in self._tensors:
            index = self._numbers.get(tensor)
            if index is not None and index not in self.graph.tensors:
                self.graph.written.append(index)

    def kept_uncomputed(self) -> dict[int, torch.Tensor]:
        """What somebody still holds that lacks its numbers, by the numbers of its values."""
        living = {
            index: tensor
            for index, tensor in self._numbers.living().items()
            if index not in self.given and tensor.numel()
        }
        uncomputed = self._known_uncomputed() if living else ()
        return {index: tensor for index, tensor in living.items() if index in uncomputed}

    def _want_numbers(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give up, if somebody asks for numbers that are only known by their shapes."""
        if self.computing:
            return
        uncomputed = self._known_uncomputed()
        if any(self._numbers.get(tensor) in uncomputed for tensor in tensors):
            self._give_up()

    def _known_uncomputed(self) -> set[int]:
        """The values that are blanks, or made of any."""
        calls = self.graph.calls
        for call in calls[self._looked_at :]:
            if not has_numbers(call.target) or not self._uncomputed.isdisjoint(call.inputs()):
                self._uncomputed.update(index for index in call.outputs if index is not None)
        self._looked_at = len(calls)
        return self._uncomputed

    def _give_up(self) -> None:
        self.lacking = True  # a forward may go on after an error
        raise NumbersWantedError("it does something by its numbers, as it did not before")

    @contextmanager
    def counting_sites(self) -> Iterator[None]:
        """Know meanwhile where in the model's source a call stands.

        What does so knows this tape. It is not kept: a cycle of references would keep all that was
        recorded in memory until Python looks for such.
        """
        if not self._located:
            yield
            return
        self.sites = SiteCounter(self._frames, self._rewrite, self._leaves, self._shows)
        try:
            with noticing_widths(self.sites.note_width), self.sites:
                yield
        finally:
            self.graph.asks_size |= self.sites.asked
            self.graph.knows_width = self.sites.knows_width
            self.sites = None

    def _shows(self, tensor: torch.Tensor) -> None:
        self._want_numbers([tensor])

    def _leaves(self, tensor: torch.Tensor, function: str) -> None:
        self._want_numbers([tensor])
        self.graph.left[self.number(tensor)] = f"{function}() in {self.module or 'the model'}"

    def keep_numbers(self, written: Sequence[torch.Tensor]) -> None:
        """Keep what parameters hold that are about to be written."""
        if any(tensor.untyped_storage()._cdata in self._outside for tensor in written):
            self._give_up()  # what is kept may tell by its numbers what is done next
        super().keep_numbers(written)

    def follow(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and write it down."""
        reads = self._with_refs(args), self._with_refs(kwargs)
        if operator.decides or operator.is_foreign:
            self._want_numbers(tensor for _, tensor in tensors_in((args, kwargs)))
        result = super().follow(operator, args, kwargs)
        outputs = [
            self._bind(item) if isinstance(item, torch.Tensor) else None
            for item in (result if isinstance(result, (list, tuple)) else (result,))
        ]
        recorded = Call(operator.target, *reads, outputs, self.module, operator.positions)
        if (sites := self.sites) is not None:
            if not sites.calling:
                # What else is done by code that makes a call without a function of torch, nobody
                # sees.
                sites.knows_width = sites.asked = True
            recorded.place, recorded.site = place_of_call(), sites.site
            recorded.given, recorded.bounds = sites.given, sites.bounds
        self.graph.calls.append(recorded)
        self.watched(recorded, result)
        for tensor in operator.written(args, kwargs) if operator.writes else ():
            self._note_write(tensor, rebind=not _is_in(tensor, result))
        return result

    def watched(self, call: Call, result: Any) -> None:
        """Called after every call that is recorded, with what it returned."""
        if self._watch is not None:
            self._watch(self, call, result)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, unless its numbers are not wanted."""
        if not self.computing and (made := self._blanks.made(func, args, kwargs)) is not None:
            return made
        return super().execute(func, args, kwargs)

    def _with_refs(self, tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            if (known := self._numbers.ref(tree)) is None:
                known = Ref(self._number_first(tree))
            return known
        if isinstance(tree, (list, tuple)):
            return [item if type(item) in _PLAIN else self._with_refs(item) for item in tree]
        if isinstance(tree, dict):
            return {name: self._with_refs(item) for name, item in tree.items()} if tree else {}
        return tree

    def _note_write(self, tensor: torch.Tensor, *, rebind: bool) -> None:
        """Give a new value to whatever else lives in memory that was just written."""
        before = self.number(tensor)
        if rebind:
            self._alias_write(tensor, before)
        sharing = self._sharing.get(tensor.untyped_storage()._cdata, ())
        for other in [alive for each in sharing if (alive := each()) is not None]:
            if other is not tensor and _overlap(tensor, other):
                self._alias_write(other, self.number(tensor))

    def _alias_write(self, tensor: torch.Tensor, source: int) -> None:
        old = self.number(tensor)
        new = self._bind(tensor)
        noted = Call(ALIAS_WRITE, (Ref(old), Ref(source)), {}, [new], self.module)
        self.graph.calls.append(noted)


@cache
def _is_real(kind: torch.dtype) -> bool:
    return kind.is_floating_point or kind.is_complex


def _is_in(tensor: torch.Tensor, result: Any) -> bool:
    items = result if isinstance(result, list | tuple) else (result,)
    return any(item is tensor for item in items)


def _overlap(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors of one storage have an element in common."""
    size = left.untyped_storage().nbytes() // left.element_size()
    taken = torch.zeros(size, dtype=torch.bool, device="cpu")
    taken.as_strided(left.shape, left.stride(), left.storage_offset()).fill_(True)
    return bool(taken.as_strided(right.shape, right.stride(), right.storage_offset()).any())
