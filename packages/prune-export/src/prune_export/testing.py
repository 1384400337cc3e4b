"""`check_exporter`: what an exporter must do, checked on a toy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_core.testing.report import run_checks
from prune_core.testing.toys import ConvNet, make_batch, make_toy

__all__ = ["check_exporter"]


@dataclass(frozen=True)
class _Subject:
    exporter: Callable[..., Any]
    ending: str
    make: Any
    read: Callable[[Path], Callable[[Tensor], Any]] | None
    options: Mapping[str, Any]

    def model(self) -> nn.Module:
        return make_toy(self.make).eval()

    def inputs(self, size: int = 2) -> Tensor:
        return make_batch(self.make, size, seed=size)[0]

    def write(self, model: nn.Module, folder: str, example_inputs: Any) -> Path:
        path = Path(folder) / f"model.{self.ending}"
        self.exporter(model, path, example_inputs, **self.options)
        return path


def _file_is_written(subject: _Subject) -> None:
    """The file is where it was wanted."""
    with tempfile.TemporaryDirectory() as folder:
        path = subject.write(subject.model(), folder, subject.inputs())
        there = sorted(file.name for file in Path(folder).iterdir())
        if not path.exists():
            raise AssertionError(f"it has not written {path.name!r}; in the folder is {there}.")


def _model_stays(subject: _Subject) -> None:
    """The model has the same values and mode as before."""
    model = subject.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        subject.write(model, folder, subject.inputs())
    now = model.state_dict()
    changed = [n for n in before if n not in now or not torch.equal(before[n], now[n])]
    if changed or now.keys() != before.keys():
        raise AssertionError(f"the model has changed: {', '.join(changed) or 'other tensors'}.")
    if model.training:
        raise AssertionError("the model is in training mode afterwards.")


def _missing_inputs_are_an_error_of_prune(subject: _Subject) -> None:
    """Without example inputs it works, or says what is missing in a `PruneError`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject.write(subject.model(), folder, None)
        except PruneError:
            pass
        except Exception as error:
            raise AssertionError(
                f"without example_inputs it raises {type(error).__name__}: {error}; raise a "
                "ConfigError that says what to give."
            ) from error


def _file_computes_the_same(subject: _Subject) -> None:
    """What is read back computes what the model does, for other inputs and another batch size."""
    if subject.read is None:
        return
    model = subject.model()
    with tempfile.TemporaryDirectory() as folder:
        run = subject.read(subject.write(model, folder, subject.inputs()))
        inputs = subject.inputs(3)
        with torch.no_grad():
            expected = model(inputs)
        found = torch.as_tensor(run(inputs)).detach()
    if found.shape != expected.shape:
        raise AssertionError(f"it returns {tuple(found.shape)} for {tuple(expected.shape)}.")
    difference = float((found - expected).abs().max())
    if not difference <= 1e-4 * max(1.0, float(expected.abs().max())):
        raise AssertionError(f"its output differs from the model's by up to {difference:.3g}.")


CHECKS: Mapping[str, Callable[[_Subject], None]] = {
    "file": _file_is_written,
    "model": _model_stays,
    "inputs": _missing_inputs_are_an_error_of_prune,
    "output": _file_computes_the_same,
}


def check_exporter(
    exporter: Callable[..., Any],
    ending: str,
    *,
    read: Callable[[Path], Callable[[Tensor], Any]] | None = None,
    model: Any = ConvNet,
    skip: Collection[str] = (),
    **options: Any,
) -> None:
    """Check what an exporter must do.

    Args:
        exporter: The function, called with `(model, path, example_inputs, **options)`.
        ending: The usual ending of its files, without the dot.
        read: Takes the path and returns a function from inputs to outputs, to compare with.
        model: Makes the model: a toy of `prune_core.testing`, or a class with an `input_shape`.
        skip: Names of checks that do not apply: `file`, `model`, `inputs`, `output`.
        **options: Further arguments of the exporter.

    Raises:
        AssertionError: When a check fails; the message lists all that do.
    """
    subject = _Subject(exporter, ending, model, read, options)
    run_checks(getattr(exporter, "__name__", repr(exporter)), CHECKS, subject, skip)
