"""Follow which ATen operators a model calls, whatever Python it is written in.

A dispatch mode sees what the model really does: no source is parsed and no control flow is
refused. What has no rule is followed as the simpler operators that it is made of. What comes of
it, others say: a `Tape` writes all of it down; who only compares what two models make, or looks
whether one of them makes the calls that it should, writes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prune_core.traversal import named_parameters
from prune_speedup.torch.record.call_sites import short_name
from prune_speedup.torch.record.data_dependent import Decisions, decide_as, everything, seen
from prune_speedup.torch.record.higher_precision import Wider
from prune_speedup.torch.record.inputs import call
from prune_speedup.torch.record.isolation import Before
from prune_speedup.torch.record.operators import Operator, operator_of
from prune_speedup.torch.record.running import plainly
from prune_speedup.torch.record.same_random import steadily
from prune_toolkit.running.restore import evaluating

__all__ = ["Follower"]

_TABLE: dict[Any, Callable[..., Any]] = {}
_WHOLE = object()
"""What stands for an operator that has no parts."""


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model, in one way or another, and goes along with every operator that it calls.

    What a forward changes in the model is put back after each run.

    Attributes:
        decided: What the calls saw that decided something by numbers, in their order.
        changed: What the model kept after the last run and did not keep before.
        steady: Whether nothing that is random depends on chance: see `same_random`.
        wide: What operators work in wider numbers by, if they do.
        before: What the model is, if that is known; otherwise each run has a look.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping `__torch_dispatch__`.

        The wrapper imports the compiler, which takes a second, and costs each call about as much
        as recording it. A run is kept from being compiled instead: see `plainly`.
        """
        return False

    def __init__(
        self, model: nn.Module, known: Callable[[Any], bool], decisions: Decisions | None = None
    ) -> None:
        """Run nothing yet.

        Args:
            model: What will run.
            known: Whether an operator has a rule. One that has not is followed as what it
                decomposes to, where it decomposes at all.
            decisions: What the forward is to see where it decides something by numbers.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._open = False
        self.changed: dict[str, Any] = {}
        self.steady = self._still = False
        self.wide: Wider | None = None
        self.before: Before | None = None
        self._known = known
        self._decisions = decisions or ()
        self.decided: list[tuple[Any, ...]] = []
        self._learned: dict[int, tuple[Operator, bool]] = {}
        self._opening: set[Any] = set()
        self._overwritten: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, example_inputs: Any, *, again: bool | None = None) -> Any:
        """Run the model in eval mode and return what it returned.

        Where the model keeps something else afterwards, it runs once more with that, and what it
        returned both times is returned.

        Args:
            example_inputs: What it is run on.
            again: Whether it runs once more; by default, if it keeps something else and can.
        """
        with self.untouched() as before, evaluating(self._model):
            returned = self.once(example_inputs)
            self._note_changes(before)
            if again is False or (again is None and not self.changed):
                return returned
            once_more = self._run_again(example_inputs, strict=bool(again))
            self._note_changes(before)
            return [returned, once_more]

    def train(self, example_inputs: Any) -> Any:
        """Run the model in train mode and return what it returned."""
        with self.untouched() as before:
            self._model.train()
            returned = self.once(example_inputs)
            self._note_changes(before)
        return returned

    def open(self, example_inputs: Any) -> Any:
        """Run the model with all found where it looks for something; return what it returned."""
        self._open = True
        with self.untouched() as before, evaluating(self._model):
            returned = self.once(example_inputs)
            self._note_changes(before)
        return returned

    def once(self, example_inputs: Any) -> Any:
        """Run the model once, as it is, and return what it returned."""
        self._still = False
        with plainly(self._model), self._watching():
            return call(self._model, example_inputs)

    def _watching(self) -> AbstractContextManager[Any]:
        """What goes along with the operators."""
        return self

    @contextmanager
    def untouched(self) -> Iterator[Before]:
        """Put back, on leaving, whatever forwards changed in the model, its parameters included."""
        before = Before(self._model) if self.before is None else self.before
        try:
            yield before
        finally:
            with torch.no_grad():
                for tensor, numbers in self._overwritten.values():
                    tensor.copy_(numbers)
            self._overwritten.clear()
            before.restore(still=self._still)
            self._still = False

    def _run_again(self, example_inputs: Any, *, strict: bool) -> Any:
        """Run it once more, with what it keeps; if not `strict`, a failure is none."""
        try:
            return self.once(example_inputs)
        except Exception:
            if strict:
                raise
            return None

    def _note_changes(self, before: Before) -> None:
        self.changed = before.changes()
        self._still = before.still  # until it runs again

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Follow one call, or the calls it is made of."""
        # A scripted function leaves the other mode on, which our own calls are none of.
        with torch._C.DisableTorchFunction():
            operator, whole = self._learned.get(id(func)) or self._learn(func)
            args, kwargs = args, kwargs or {}
            if not whole and (parts := self._decomposed(func, args, kwargs)) is not _WHOLE:
                return parts
            return self.follow(operator, args, kwargs)

    def follow(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and do what is to be done about it."""
        if operator.writes:
            self.keep_numbers(operator.written(args, kwargs))
        run = self.decide if operator.decides else self.execute
        result = run(operator.target, args, kwargs)
        self.followed(operator, args, kwargs, result)
        return result

    def followed(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Called after every call, with what it returned."""

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator; the place for who wants it run otherwise."""
        operator = operator_of(func)
        if self.steady and operator.is_random:
            if self.wide is not None:
                args, kwargs = self.wide.arguments(operator, args, kwargs)
            return steadily(func, args, kwargs)
        result = (
            func(*args, **kwargs) if self.wide is None else self.wide.run(operator, args, kwargs)
        )
        if operator.is_empty:
            result.zero_()  # what memory happens to hold is nothing to compare
        return result

    def decide(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator that decides something, and let it decide as it should."""
        name, number = short_name(func.overloadpacket), len(self.decided)
        if self._open and (found := everything(func, name, args)) is not None:
            return found
        result = self.execute(func, args, kwargs)
        self.decided.append(seen(name, args, result))
        if number < len(self._decisions):
            return decide_as(self._decisions[number], func, name, args, kwargs, result)
        return result

    def keep_numbers(self, written: Sequence[torch.Tensor]) -> None:
        """Keep what parameters hold that are about to be written."""
        for tensor in written:
            for parameter in self._stored.get(tensor.untyped_storage()._cdata, ()):
                if id(parameter) not in self._overwritten:
                    self._overwritten[id(parameter)] = parameter, parameter.detach().clone()

    @cached_property
    def _stored(self) -> dict[int, list[torch.Tensor]]:
        """The parameters that lie in a storage."""
        stored: dict[int, list[torch.Tensor]] = {}
        for parameter in named_parameters(self._model).values():
            if parameter.layout is torch.strided:
                stored.setdefault(parameter.untyped_storage()._cdata, []).append(parameter)
        return stored

    def _learn(self, func: Any) -> tuple[Operator, bool]:
        """What is known of an operator, and whether it is followed as it is."""
        learned = self._learned[id(func)] = operator_of(func), self._known(func)
        return learned

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator by way of simpler ones, which are followed on the way."""
        if func in self._opening:
            return _WHOLE
        self._opening.add(func)
        try:
            with self:
                recipe = _decompositions().get(func)
                result = recipe(*args, **kwargs) if recipe else func.decompose(*args, **kwargs)
        finally:
            self._opening.discard(func)
        return _WHOLE if result is NotImplemented else result


def _decompositions() -> dict[Any, Callable[..., Any]]:
    if not _TABLE:
        from torch._decomp import core_aten_decompositions

        _TABLE.update(core_aten_decompositions())
    return _TABLE
