"""See at little cost whether a small model follows as it is.

Most models have written down no size outside of their layers. Such a model makes the recorded
calls, each with a result of the shape that is planned, and nothing has to be corrected. Where
anything is otherwise, or cannot be told by shapes, `run_small` looks closer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prune_core.registry import names
from prune_core.traversal import named_modules
from prune_speedup.engine.graph import Call, Graph, Ref
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.any_width import hides_widths
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.resize.layers import written_down
from prune_speedup.torch.resize.literals import same_places
from prune_speedup.torch.rules import has_rule

__all__ = ["follows_as_it_is", "is_sure_to_follow", "tells_no_size"]

_TOLD_BY_SHAPE = {"view", "_unsafe_view", "expand", "zeros", "ones", "new_zeros", "new_ones"} | {
    *("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"),
    *("convolution", "native_layer_norm", "_fused_rms_norm"),
}
"""Operators that fail, or make something of another shape, if they are told wrong sizes."""


_LAYERS = frozenset({"convolution", "native_layer_norm", "_fused_rms_norm"})


class _UnsureError(Exception):
    """Something is otherwise than was recorded, which may yet be right."""


def tells_no_size(graph: Graph) -> bool:
    """Whether a forward tells no call of torch what could be a size, but for its layers.

    What it tells a convolution, such as how far it pads, is none; and over how many channels a norm
    runs its layer knows, which is cut. Such a model hardly ever fails to follow smaller tensors:
    only if its Python looks at shapes, and does something by them.
    """
    told = [call for call in graph.calls if call.site is not None and call.given]
    return all(call.name in _LAYERS for call in told)


def is_sure_to_follow(model: nn.Module, plan: Plan) -> bool:
    """Whether a small model can do nothing else than was recorded, so that no run has to tell.

    That is where all calls do the same to any number of channels, and where no code could have
    known a width and decided by it. What is written down then has to be torch's own.

    Args:
        model: The model before the cut.
        plan: What goes.
    """
    graph = plan.labelling.graph
    if graph.knows_width or graph.first < len(graph.calls):
        return False
    if names("resizer"):  # who knows what a plugin's change
        return False
    layers = dict(named_modules(model))
    told = [module for module, _, _ in written_down(model, plan)]
    return (
        all(type(module).__module__.startswith("torch.nn.modules.") for module in told)
        and all(_has_its_groups(call, graph, layers) for call in graph.calls)
        and not any(map(hides_widths, {*map(type, layers.values())}))
    )


def _has_its_groups(call: Call, graph: Graph, layers: Mapping[str, nn.Module]) -> bool:
    """Whether a convolution in groups is told how many by a layer of torch, where they change."""
    if call.name != "convolution" or call.args[8] == 1:
        return True
    layer = layers[call.module]
    own = f"{call.module}.weight" in graph.tensors.get(call.args[1].index, ())
    as_ever = {"forward", "_conv_forward"}.isdisjoint(vars(layer))
    return own and as_ever and type(layer).__module__ == nn.Conv2d.__module__


def follows_as_it_is(model: nn.Module, example_inputs: Any, plan: Plan) -> bool:
    """Whether a small model makes the calls of the recording, and each as the plan says.

    What it says no to may still be repaired, or even be right.
    """
    graph = plan.labelling.graph
    if graph.first < len(graph.calls):
        return False
    beside, computing = _Beside(plan), not graph.by_shapes
    recorder = Recorder(model, has_rule, beside.look, located=False, computing=computing)
    try:
        recorder.run(example_inputs, again=False)
    except Exception:
        return False
    finally:
        if not computing:
            recorder.give_numbers()
    return not beside.waiting


class _Beside:
    """Holds each call of a forward to the recorded one.

    Attributes:
        waiting: The recorded calls that are still to be made, the next one last.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._read = plan, plan.read
        calls = plan.labelling.graph.calls
        self.waiting = [each for each in reversed(calls) if not isinstance(each.target, str)]

    def look(self, recorder: Recorder, call: Call, result: Any) -> None:
        """Look at a call that was made."""
        before = self.waiting.pop() if self.waiting else None
        if before is None or before.target is not call.target:
            raise _UnsureError
        self._check_numbers(before, call)
        self._check_shapes(before, result)

    def _check_numbers(self, before: Call, call: Call) -> None:
        name = before.name
        if name in _TOLD_BY_SHAPE:
            return
        if name == "slice":
            same = same_places(self._plan, before, call.args)
        elif name == "roll" and self._plan.kept_of_value(before.inputs()[0]):
            same = False
        else:
            same = _same(before.args, call.args) and _same(before.kwargs, call.kwargs)
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
        return isinstance(now, Ref)
    if isinstance(before, (list, tuple)):
        return (
            isinstance(now, (list, tuple))
            and len(before) == len(now)
            and all(map(_same, before, now))
        )
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in before)
    return type(before) is type(now) and bool(before == now)
