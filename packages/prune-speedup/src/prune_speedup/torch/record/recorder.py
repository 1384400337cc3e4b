"""Record a model's forward, and whatever else it can be made to do, in one graph."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError
from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import Graph
from prune_speedup.torch.parts import give_numbers
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import arguments, described, shown_error, tensors_in
from prune_speedup.torch.record.isolation import Before
from prune_speedup.torch.record.remembered import fill
from prune_speedup.torch.record.running import plainly
from prune_speedup.torch.record.tape import Tape
from prune_toolkit.running.restore import evaluating

__all__ = ["Recorder", "trace"]


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    known: Callable[[Any], bool] | None = None,
    also: Sequence[Case] = (),
) -> Graph:
    """Run `model(example_inputs)` once, in eval mode and without gradients, and record it.

    The model is left exactly as it was: modes, buffers, attributes and random numbers. Products of
    matrices are not computed, unless the forward does something by what they are.

    Args:
        model: Any module.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        known: Whether an operator has a rule. One that has not is recorded as what it
            decomposes to, where it decomposes at all.
        also: Further ways of running it that are to be recorded too, if it accepts them.

    Raises:
        ConfigError: The model does not run on these inputs.
    """
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        # Some kernels of that device import this when they first run, which a tape must not see.
        import_module("torch._dynamo")
    known = known or (lambda target: True)
    recorder = _shapes_of(model, example_inputs, known)
    if recorder is None:
        recorder = Recorder(model, known)
        try:
            recorder.run(example_inputs)
        except Exception as error:
            raise ConfigError(
                f"The model does not run on {described(example_inputs)}: {type(error).__name__}: "
                f"{shown_error(error)} Give example inputs that model(...) accepts: a tensor, a "
                "tuple of positional or a dict of keyword arguments."
            ) from error
    if recorder.unread_parameters():
        recorder.run_training(example_inputs)
    if recorder.graph.decisions and recorder.unread_parameters():
        recorder.run_open(example_inputs)
    for case in also:
        recorder.run_also(case)
    return recorder.graph


def _shapes_of(
    model: nn.Module, example_inputs: Any, known: Callable[[Any], bool]
) -> "Recorder | None":
    """A recording for which nothing was multiplied, if it is the same as with all numbers."""
    recorder = Recorder(model, known, computing=False)
    graph = recorder.graph
    try:
        recorder.run(example_inputs, again=False)
        same = not (recorder.lacking or recorder.changed or graph.written or graph.kept)
    except Exception:
        same = False  # it wanted numbers, or fails with them, too
    recorder.give_numbers()
    recorder.computing, graph.by_shapes = True, True
    return recorder if same else None


class Recorder(Tape):  # type: ignore[no-untyped-call]
    """A tape with the further ways of running a model that are added to the same graph."""

    def run_training(self, example_inputs: Any, *, strict: bool = False) -> None:
        """Record what only a training model does too, such as its auxiliary heads.

        The calls are added to the same graph. A model that cannot train on its example inputs
        (a batch norm over a single number, say) is known by its eval mode alone.
        """
        with self.untouched():
            self._model.train()
            self.graph.trained = self._record_more(example_inputs, strict=strict)

    def run_open(self, example_inputs: Any, *, strict: bool = False) -> None:
        """Record what else a forward does if every index that it looks for is found.

        Of a mixture of experts, the example may not have reached all. The calls are added to the
        same graph.
        """
        self._open = True
        with self.untouched(), evaluating(self._model):
            self.graph.opened = self._record_more(example_inputs, strict=strict)
        self._open = False

    def run_also(self, case: Case, *, strict: bool = False) -> None:
        """Record what else a model does in another case; the calls are added to the same graph."""
        with self.untouched(), evaluating(self._model):
            if case.training:
                self._model.train()
            self._open, self.steady = case.opened, case.training
            returned, read = len(self.graph.outputs), set(self.graph.tensors)
            start = self._record_more(case.inputs, strict=strict)
            self._open = self.steady = False
        if start is not None:
            self.graph.also.append((case, start))
        if start is not None and case.asks:
            self.graph.shown += self.graph.outputs[returned:]
            self.graph.asked_for |= self.graph.tensors.keys() - read
            del self.graph.outputs[returned:]

    def give_numbers(self) -> None:
        """Compute what somebody still holds of a run without numbers; to be called after each."""
        self.changed = {}  # the model has it no longer
        if kept := self.kept_uncomputed():
            give_numbers(named_tensors(self._model).values())
            with plainly(self._model):
                fill(self.graph, self.given, kept)
        self.given.clear()

    def _run_again(self, example_inputs: Any, *, strict: bool) -> Any:
        self._returned = None
        self.graph.again = self._record_more(example_inputs, strict=strict)
        return self._returned

    def _note_changes(self, before: Before) -> None:
        super()._note_changes(before)
        self._note_kept()

    def _record_more(self, example_inputs: Any, *, strict: bool) -> int | None:
        """Record another run; if it fails, it was none."""
        graph = self.graph
        before = len(graph.calls), list(graph.inputs), list(graph.outputs), list(graph.opaque)
        decided = len(graph.decisions)
        try:
            self._returned = self.once(example_inputs)
        except Exception:
            if strict:
                raise
            del graph.calls[before[0] :], graph.decisions[decided:]
            graph.inputs, graph.outputs, graph.opaque = before[1:]
            return None
        return before[0]

    def once(self, example_inputs: Any) -> Any:
        """Run the model once, as it is, write down what it does, and return what it returned."""
        with torch.no_grad():
            args, kwargs = arguments(example_inputs)
            given = [self.number(tensor) for _, tensor in tensors_in((args, kwargs))]
            self.graph.inputs += given
            with self.counting_sites():
                returned = super().once(example_inputs)
            self._finish(returned)
        return returned
