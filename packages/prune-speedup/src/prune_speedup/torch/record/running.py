"""Run a model in one way or another, and leave no trace of it."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prune_speedup.torch.record.higher_precision import Wider
from prune_speedup.torch.record.inputs import call
from prune_speedup.torch.record.isolation import Before, untouched
from prune_speedup.torch.record.kernels import plain_kernels
from prune_toolkit.running.restore import evaluating

__all__ = ["Run", "plainly"]


class Run:
    """The ways in which a model is run.

    What a forward changes in the model is put back after each of them.

    Attributes:
        changed: What the model kept after the last of them and did not keep before.
        steady: Whether nothing that is random depends on chance: see `same_random`.
        wide: What operators work in wider numbers by, if they do.
        before: What the model is, if that is known; otherwise each run has a look.
    """

    def __init__(self, model: nn.Module) -> None:
        """Know what will run."""
        self._model = model
        self._open = False
        self.changed: dict[str, Any] = {}
        self.steady = False
        self.wide: Wider | None = None
        self.before: Before | None = None

    def run(self, example_inputs: Any, *, again: bool | None = None) -> Any:
        """Run the model in eval mode and return what it returned.

        Where the model keeps something else afterwards, it runs once more with that, and what it
        returned both times is returned.

        Args:
            example_inputs: What it is run on.
            again: Whether it runs once more; by default, if it keeps something else and can.
        """
        with self.untouched() as before, evaluating(self._model):
            returned = self.record(example_inputs)
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

    def record(self, example_inputs: Any) -> Any:
        """Run the model as it is, and return what it returned."""
        with plainly(self._model):
            return call(self._model, example_inputs)

    @contextmanager
    def untouched(self) -> Iterator[Before]:
        """Put back, on leaving, whatever forwards changed in the model."""
        with untouched(self._model, self.before) as before:
            yield before

    def _run_again(self, example_inputs: Any, *, strict: bool) -> Any:
        """Run it once more, with what it keeps; if not `strict`, a failure is none."""
        return self.record(example_inputs)

    def _note_changes(self, before: Before) -> None:
        self.changed = before.changes()


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
