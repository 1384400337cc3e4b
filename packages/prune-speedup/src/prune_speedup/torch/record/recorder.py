"""Run a model in one way or another while a tape writes down what it does, and leave no trace."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from prune_core.errors import ConfigError
from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import Graph
from prune_speedup.torch.parts import give_numbers
from prune_speedup.torch.record.call_sites import Frame
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import (
    arguments,
    call,
    described,
    shown_error,
    tensors_in,
)
from prune_speedup.torch.record.isolation import Before, untouched
from prune_speedup.torch.record.kernels import plain_kernels
from prune_speedup.torch.record.remembered import fill
from prune_speedup.torch.record.tape import Tape
from prune_toolkit.running.restore import evaluating

__all__ = ["Recorder", "plainly", "trace"]


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
    """A tape with the ways in which a model is run.

    What a forward changes in the model is put back after each of them.
    """

    def run(self, example_inputs: Any, *, again: bool | None = None) -> Any:
        """Run the model in eval mode under this recorder and return what it returned.

        Where the model keeps something else afterwards, it runs once more with that, and what it
        returned both times is returned. The calls are added to the same graph.

        Args:
            example_inputs: What it is run on.
            again: Whether it runs once more; by default, if it keeps something else and can.
        """
        with self.untouched() as before, evaluating(self._model):
            returned = self.record(example_inputs)
            self.changed = before.changes()
            self._note_kept()
            if again is False or (again is None and not self.changed):
                return returned
            self.graph.again = self._record_more(example_inputs, strict=bool(again))
            self.changed = before.changes()
            self._note_kept()
            return [returned, self._returned]

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

    def train(self, example_inputs: Any) -> Any:
        """Run the model in train mode under this recorder and return what it returned."""
        with self.untouched() as before:
            self._model.train()
            returned = self.record(example_inputs)
            self.changed = before.changes()
        return returned

    def open(self, example_inputs: Any) -> Any:
        """Run the model with all found where it looks for something; return what it returned."""
        self._open = True
        with self.untouched() as before, evaluating(self._model):
            returned = self.record(example_inputs)
            self.changed = before.changes()
        return returned

    def give_numbers(self) -> None:
        """Compute what somebody still holds of a run without numbers; to be called after each."""
        self.changed = {}  # the model has it no longer
        if kept := self.kept_uncomputed():
            give_numbers(named_tensors(self._model).values())
            with plainly(self._model):
                fill(self.graph, self.given, kept)
        self.given.clear()

    @contextmanager
    def untouched(self) -> Iterator[Before]:
        """Put back, on leaving, whatever forwards changed in the model, its parameters included."""
        with untouched(self._model) as before:
            try:
                yield before
            finally:
                with torch.no_grad():
                    for tensor, numbers in self._overwritten.values():
                        tensor.copy_(numbers)
                self._overwritten.clear()

    def _record_more(self, example_inputs: Any, *, strict: bool) -> int | None:
        """Record another run; if it fails, it was none."""
        graph = self.graph
        before = len(graph.calls), list(graph.inputs), list(graph.outputs), list(graph.opaque)
        decided = len(graph.decisions)
        try:
            self._returned = self.record(example_inputs)
        except Exception:
            if strict:
                raise
            del graph.calls[before[0] :], graph.decisions[decided:]
            graph.inputs, graph.outputs, graph.opaque = before[1:]
            return None
        return before[0]

    def record(self, example_inputs: Any) -> Any:
        """Run the model as it is under this recorder, and return what it returned."""
        with torch.no_grad(), self._watching_modules():
            args, kwargs = arguments(example_inputs)
            given = [self.number(tensor) for _, tensor in tensors_in((args, kwargs))]
            self.graph.inputs += given
            with plainly(self._model), self.counting_sites(), self:
                returned = call(self._model, example_inputs)
            self._finish(returned)
        return returned

    @contextmanager
    def _watching_modules(self) -> Iterator[None]:
        """Know which module is running."""

        def enter(module: nn.Module, _: object) -> None:
            self._frames.append(Frame(self._modules.get(id(module), self.module)))
            self.reached = self.module

        def leave(module: nn.Module, _: object, output: object) -> None:
            self._frames.pop()
            # A module that fails is left with no output: then what was reached is to be known.
            if output is not None:
                self.reached = self.module

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Run a model meanwhile without gradients, and operator by operator."""
    with torch.no_grad(), _eagerly(), plain_kernels(model):
        yield


@contextmanager
def _eagerly() -> Iterator[None]:
    """Run compiled parts of a model uncompiled, so that their operators are seen."""
    if "torch._dynamo" not in sys.modules:  # then nothing can have been compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # It warns that hooks on all modules fire twice for a compiled one, which does no harm here.
        warnings.filterwarnings("ignore", "Using `torch.compile.module.`", UserWarning)
        yield
