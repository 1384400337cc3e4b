"""From a torch model to its units, once for a model and its inputs.

Recording a forward and labelling it is most of what planning takes. A pruner does it, a budget, a
search for each of its candidates, and `shrink` at the end, all of the same model. So the last few
analyses are remembered, by all that a recording depends on (see `fingerprint`), as long as their
model lives. They are neither copied nor pickled with it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from prune_core.masking import bare
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.propagate import Labelling, propagate
from prune_speedup.engine.units import Units, read_units
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.fingerprint import Fingerprint, fingerprint
from prune_speedup.torch.record.data_dependent import decides
from prune_speedup.torch.record.inputs import arguments, tensors_in
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import TORCH, has_rule

__all__ = [
    "Analysis",
    "analysis_of",
    "depends_on_state",
    "is_outdated",
    "labelled",
    "remembered_units",
    "units",
]

_REMEMBERED = 4
"""How many analyses are kept at once."""


class Analysis:
    """A recorded forward, its labels and its units; the last two are found when asked for.

    Attributes:
        graph: The recording.
        recalled: Whether this was made by an earlier call.
        opaque: Whether the model's own code may read what was not looked at.
    """

    def __init__(self, graph: Graph, *, opaque: bool = True) -> None:
        """Begin with the recording alone."""
        self.graph, self.opaque = graph, opaque
        self.recalled = False

    @cached_property
    def labelling(self) -> Labelling:
        """The labels of every tensor."""
        return labelled(self.graph)

    @cached_property
    def units(self) -> Units:
        """What can be removed, and what must go with it."""
        return read_units(self.labelling)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """An analysis, and when it is good.

    Attributes:
        models: What it was asked for: the model, and copies of it.
        print: What the recording depends on, but for numbers.
        numbers: The inputs, where the forward decides something by theirs.
        analysis: What was found.
    """

    models: list[weakref.ref[nn.Module]]
    print: Fingerprint
    numbers: list[torch.Tensor]
    analysis: Analysis

    def lives(self) -> bool:
        """Whether any of its models does."""
        self.models[:] = [each for each in self.models if each() is not None]
        return bool(self.models)

    def is_of(self, print_: Fingerprint, inputs: list[torch.Tensor]) -> bool:
        """Whether it is what would be found of a model with this fingerprint on these inputs."""
        return self.print.same(print_) and all(map(torch.equal, self.numbers, inputs))


_memory: list[_Remembered] = []


def analysis_of(model: nn.Module, example_inputs: Any) -> Analysis:
    """Record a forward of a model, or recall what an earlier call has found of the very same.

    Args:
        model: The model as it is run, without wrappers.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
    """
    _memory[:] = [each for each in _memory if each.lives()]
    print_ = fingerprint(model, example_inputs)
    if print_ is None:
        return Analysis(trace(model, example_inputs, known=has_rule))
    inputs = [tensor for _, tensor in tensors_in(arguments(example_inputs))]
    for each in _memory:
        if each.is_of(print_, inputs):
            if all(known() is not model for known in each.models):
                each.models.append(weakref.ref(model))
            each.analysis.recalled = True
            return each.analysis
    graph = trace(model, example_inputs, known=has_rule)
    analysis = Analysis(graph, opaque=print_.opaque)
    if not depends_on_state(graph):
        decided = bool(graph.decisions or graph.left)
        numbers = [tensor.detach().clone() for tensor in inputs] if decided else []
        _memory.insert(0, _Remembered([weakref.ref(model)], print_, numbers, analysis))
        del _memory[_REMEMBERED:]
    return analysis


def is_outdated(analysis: Analysis, model: nn.Module, example_inputs: Any) -> bool:
    """Whether the model does something else now than was recalled; then that is forgotten."""
    if not analysis.recalled:
        return False
    old, new = analysis.graph, trace(model, example_inputs, known=has_rule)
    if (old.calls, old.metas, old.outputs) == (new.calls, new.metas, new.outputs):
        return False
    _memory[:] = [each for each in _memory if each.analysis is not analysis]
    return True


def depends_on_state(graph: Graph) -> bool:
    """Whether the same model might make other calls once it holds other numbers.

    So where a branch or a size is decided by numbers in which a parameter has a part, where such
    numbers leave torch, and where a forward changes what the model keeps: it is run once more then,
    if what is kept has really changed. Whether a mask given as an input has a gap depends on the
    inputs alone.
    """
    if graph.written or graph.kept or graph.again is not None:
        return True
    known = set(graph.inputs)  # and what follows from inputs alone, or from nothing
    for call in graph.calls:
        if known.issuperset(call.inputs()):
            known.update(index for index in call.outputs if index is not None)
        elif not isinstance(call.target, str) and decides(call.target):
            return True
    return not known.issuperset(graph.left)


def labelled(graph: Graph) -> Labelling:
    """Label a recorded forward by torch's rules."""
    return propagate(graph, TORCH)


@collecting_later()
def remembered_units(model: nn.Module, example_inputs: Any) -> Units:
    """What `units` finds, as it is remembered: to be looked at only."""
    with bare(model) as plain:
        return analysis_of(plain, example_inputs).units


def units(model: nn.Module, example_inputs: Any) -> Units:
    """Find what can be removed from a model, and what must go with it.

    Args:
        model: Any module; it is run once, in eval mode, and left as it was.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Example:
        A unit is a channel of the first convolution: its filter, its bias, and what the second
        convolution reads of it. The outputs of the model stay.

        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> print(units(model, torch.zeros(1, 1, 8, 8)))
        0.weight[0]: 4 units
        ├── 0.weight axis 0 of 4, 1 index each
        ├── 0.bias axis 0 of 4, 1 index each
        └── 2.weight axis 1 of 4, 1 index each
    """
    found = remembered_units(model, example_inputs)
    # The lists are the caller's own; what is remembered stays whatever becomes of them.
    mine = {key: classes.copy() for key, classes in found.axes.items()}
    return replace(found, groups=list(found.groups), axes=mine)
