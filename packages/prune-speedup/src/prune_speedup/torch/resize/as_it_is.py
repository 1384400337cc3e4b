"""See at little cost whether a small model follows as it is.

Most models have written down no size outside of their layers. Such a model makes the recorded
calls, each with a result of the shape that is planned, and nothing has to be corrected. Where
anything is otherwise, or cannot be told by shapes, `run_small` looks closer.
"""

from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import nn

from prune_core.traversal import named_modules, named_tensors
from prune_speedup.engine.graph import Call, Graph, Ref
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.record.isolation import Before
from prune_speedup.torch.record.operators import Operator
from prune_speedup.torch.record.own_code import names_in, own_functions
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.record.without_numbers import Blanks
from prune_speedup.torch.resize.layers import WIDTHS
from prune_speedup.torch.resize.literals import same_places
from prune_speedup.torch.rules import has_rule

__all__ = ["follows_as_it_is", "is_sure_to_follow", "tells_no_size"]

_TOLD_BY_SHAPE = {"view", "_unsafe_view", "expand", "zeros", "ones", "new_zeros", "new_ones"} | {
    *("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"),
    *("convolution", "native_layer_norm", "_fused_rms_norm"),
}
"""Operators that fail, or make something of another shape, if they are told wrong sizes."""


class _UnsureError(Exception):
    """Something is otherwise than was recorded, which may yet be right."""


def tells_no_size(graph: Graph) -> bool:
    """Whether a forward tells no call of torch what could be a size, but for its convolutions.

    What it tells these, such as how far they pad, is none. Such a model hardly ever fails to follow
    smaller tensors: only if its Python looks at shapes, and does something by them.
    """
    told = [call for call in graph.calls if call.site is not None and call.given]
    return all(call.name == "convolution" for call in told)


def is_sure_to_follow(model: nn.Module, plan: Plan) -> bool:
    """Whether nothing in a forward can tell how wide its layers are, so that no run has to.

    It neither tells torch a size nor asks for one: layers of torch do what is done with tensors.

    Args:
        model: The model, which may be cut already.
        plan: What goes.
    """
    graph = plan.labelling.graph
    if graph.first < len(graph.calls) or graph.asks_size or not _leaves_nothing(graph):
        return False
    if not tells_no_size(graph) or _reads_widths(model):
        return False
    layers = dict(named_modules(model))
    return all(
        isinstance(layers.get(call.module), nn.modules.conv._ConvNd)
        for call in graph.calls
        if call.name == "convolution" and call.args[8] > 1  # in so many groups
    )


def _reads_widths(model: nn.Module) -> bool:
    """Whether any code of the model's own reads how wide a layer is, but to make one."""
    return any(
        function.__name__ != "__init__" and not WIDTHS.isdisjoint(names_in(function.__code__))
        for function in own_functions(model)
    )


def follows_as_it_is(model: nn.Module, example_inputs: Any, plan: Plan) -> bool:
    """Whether a small model makes the calls of the recording, and each as the plan says.

    What it says no to may still be repaired, or even be right.
    """
    graph = plan.labelling.graph
    if graph.first < len(graph.calls):
        return False
    if graph.by_shapes and _leaves_nothing(graph):
        beside = _Beside(plan)
        with suppress(Exception):
            _Trial(model, example_inputs, beside).run(example_inputs, again=False)
            return not beside.waiting
        return False
    return _is_recorded_alike(model, example_inputs, plan)


def _is_recorded_alike(model: nn.Module, example_inputs: Any, plan: Plan) -> bool:
    """The same, by a recording: what somebody keeps of it has to get its numbers."""
    beside, computing = _Beside(plan), not plan.labelling.graph.by_shapes

    def look(recorder: Recorder, call: Call, result: Any) -> None:
        beside.next(call.target)
        beside.look(call.args, call.kwargs, result)

    recorder = Recorder(model, has_rule, look, located=False, computing=computing)
    try:
        recorder.run(example_inputs, again=False)
    except Exception:
        return False
    finally:
        if not computing:
            recorder.give_numbers()
    return not beside.waiting


def _leaves_nothing(graph: Graph) -> bool:
    """Whether nothing is decided by numbers, and nobody keeps a result when a forward is over."""
    return not (graph.decisions or graph.left or graph.written or graph.kept_blank)


class _Beside:
    """Holds each call of a forward to the recorded one.

    Attributes:
        waiting: The recorded calls that are still to be made, the next one last.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._read = plan, plan.read
        calls = plan.labelling.graph.calls
        self.waiting = [each for each in reversed(calls) if not isinstance(each.target, str)]
        self._before: Call | None = None

    def next(self, target: Any) -> None:
        """Go on to the next call, which is to be one of this operator."""
        self._before = self.waiting.pop() if self.waiting else None
        if self._before is None or self._before.target is not target:
            raise _UnsureError

    def look(self, args: Any, kwargs: Any, result: Any) -> None:
        """Look at what it was given, and what it has made."""
        assert self._before is not None
        self._check_numbers(self._before, args, kwargs)
        self._check_shapes(self._before, result)

    def _check_numbers(self, before: Call, args: Any, kwargs: Any) -> None:
        name = before.name
        if name in _TOLD_BY_SHAPE:
            return
        if name == "slice":
            same = same_places(self._plan, before, args)
        elif name == "roll" and self._plan.kept_of_value(before.inputs()[0]):
            same = False
        else:
            same = _same(before.args, args) and _same(before.kwargs, kwargs)
        if not same:
            raise _UnsureError

    def _check_shapes(self, before: Call, result: Any) -> None:
        items = result if isinstance(result, (list, tuple)) else (result,)
        if len(items) != len(before.outputs):
            raise _UnsureError
        for index, item in zip(before.outputs, items, strict=True):
            if index in self._read and isinstance(item, torch.Tensor):
                assert index is not None
                if not self._plan.fits(index, tuple(item.shape)):
                    raise _UnsureError


class _Trial(Follower):  # type: ignore[no-untyped-call]
    """Runs a small model without numbers, as long as it does what was recorded."""

    def __init__(self, model: nn.Module, example_inputs: Any, beside: _Beside) -> None:
        super().__init__(model, has_rule)
        self._beside, self._blanks, self._inputs = beside, Blanks(), example_inputs

    def follow(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, if it is the next one, and look what it makes."""
        self._beside.next(operator.target)
        if operator.is_foreign or (
            operator.writes
            and any(
                t.untyped_storage()._cdata in self._held for t in operator.written(args, kwargs)
            )
        ):
            raise _UnsureError  # what it is to see, or to leave somewhere, are numbers
        result = self._blanks.made(operator.target, args, kwargs)
        if result is None:
            result = self.execute(operator.target, args, kwargs)
        self._beside.look(args, kwargs, result)
        return result

    def _note_changes(self, before: Before) -> None:
        pass  # nobody asks

    @cached_property
    def _held(self) -> set[int]:
        """The memory of what was there before the run."""
        held = [*named_tensors(self._model).values(), *dict(tensors_in(self._inputs)).values()]
        return {t.untyped_storage()._cdata for t in held if t.layout is torch.strided}


def _same(before: Any, now: Any) -> bool:
    """Whether arguments are the recorded ones, tensors aside."""
    if isinstance(before, Ref):
        return isinstance(now, (Ref, torch.Tensor))
    if isinstance(before, (list, tuple)):
        return (
            isinstance(now, (list, tuple))
            and len(before) == len(now)
            and all(map(_same, before, now))
        )
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    return type(before) is type(now) and bool(before == now)
