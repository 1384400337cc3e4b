"""See at little cost whether a small model follows as it is.

Most models have written down no size outside of their layers. Such a model makes the recorded
calls, each with a result of the shape that is planned, and nothing has to be corrected. Where
anything is otherwise, or cannot be told by shapes, `run_small` looks closer.
"""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.inputs import call as run
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.record.recorder import plainly
from prune_speedup.torch.record.without_numbers import Blanks
from prune_speedup.torch.resize.literals import same_places
from prune_toolkit.running.restore import evaluating

__all__ = ["follows_as_it_is"]

_TOLD_BY_SHAPE = {"view", "_unsafe_view", "expand", "zeros", "ones", "new_zeros", "new_ones"} | {
    *("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"),
    *("convolution", "native_layer_norm", "_fused_rms_norm"),
}
"""Operators that fail, or make something of another shape, if they are told wrong sizes."""


class _UnsureError(Exception):
    """Something is otherwise than was recorded, which may yet be right."""


def follows_as_it_is(model: nn.Module, example_inputs: Any, plan: Plan) -> bool:
    """Whether a small model makes the calls of the recording, and each as the plan says.

    What it says no to may still be repaired, or even be right.
    """
    graph = plan.labelling.graph
    if graph.first < len(graph.calls):
        return False
    following = _Following(plan)
    try:
        with untouched(model), evaluating(model), plainly(model), following:
            run(model, example_inputs)
    except Exception:
        return False
    return following.ended()


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Holds each call of a forward to the recorded one."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as `Tape` has it

    def __init__(self, plan: Plan) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._plan, self._read = plan, plan.read
        self._blanks = Blanks() if plan.labelling.graph.by_shapes else None
        calls = plan.labelling.graph.calls
        self._waiting = [each for each in reversed(calls) if not isinstance(each.target, str)]

    def ended(self) -> bool:
        """Whether all calls were made."""
        return not self._waiting

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make a call and look at it."""
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            result = self._blanks.made(func, args, kwargs) if self._blanks is not None else None
            if result is None:
                result = func(*args, **kwargs)
            before = self._waiting.pop() if self._waiting else None
            if before is None or before.target is not func:
                raise _UnsureError
            self._check_numbers(before, args, kwargs)
            self._check_shapes(before, result)
        return result

    def _check_numbers(self, before: Call, args: Any, kwargs: dict[str, Any]) -> None:
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


def _same(before: Any, now: Any) -> bool:
    """Whether arguments are the recorded ones, tensors aside."""
    if isinstance(before, Ref):
        return isinstance(now, torch.Tensor)
    if isinstance(before, (list, tuple)):
        return (
            isinstance(now, (list, tuple))
            and len(before) == len(now)
            and all(map(_same, before, now))
        )
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    return type(before) is type(now) and bool(before == now)
