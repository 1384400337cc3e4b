"""How bad a model is, on data or in the user's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from prune_core.callables import UserFunction
from prune_core.errors import ConfigError, PruneError
from prune_toolkit.running.restore import only_run

__all__ = ["distance_from", "loss_in", "loss_of", "returns_loss"]

_SAME = 1e-6
"""What rounding may do to the outputs of one model."""

Run = Callable[[nn.Module], Any]


def loss_in(output: Any) -> Tensor | None:
    """Return the loss among the outputs of a model, or the output that is one; else None."""
    loss = output.get("loss") if isinstance(output, Mapping) else output
    loss = getattr(output, "loss", loss)
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None


def loss_of(model: nn.Module, evaluate: UserFunction | None, run: Run | None) -> float:
    """Return the loss that the user measures, or else the mean of what the model returns as one.

    Args:
        model: The model.
        evaluate: The user's function of the model.
        run: Runs the model on data instead.

    Raises:
        ConfigError: The user's function returned no number.
        PruneError: The model returns no loss, or was never run.
    """
    if evaluate is not None:
        loss = evaluate(model)
        try:
            return float(loss)
        except (TypeError, ValueError):
            raise ConfigError(
                f"evaluate returned a {type(loss).__name__}; it must return a loss, one number."
            ) from None
    losses: list[float] = []

    def note(output: Any) -> None:
        loss = loss_in(output)
        if loss is None:
            raise PruneError(
                f"The model returns a {type(output).__name__} and no loss on the calibration "
                "data. Give evaluate=, a function of the model that returns its loss; models "
                "of transformers return one where the data hold labels."
            )
        losses.append(float(loss))

    assert run is not None
    with _told_of_outputs(model, note):
        run(model)
    if not losses:
        raise PruneError("The calibration never ran the model, so there is nothing to rank by.")
    return sum(losses) / len(losses)


def returns_loss(model: nn.Module, run: Run) -> bool:
    """Whether a model returns a loss on the data."""
    found: list[bool] = []
    with _told_of_outputs(model, lambda output: found.append(loss_in(output) is not None)):
        _run_only(model, run)
    return bool(found) and all(found)


def distance_from(model: nn.Module, run: Run) -> Callable[[nn.Module], float]:
    """Return a function that says how far a smaller model is from this one, on the data.

    It is the squared distance of the first tensors that the two return, relative to the square of
    this model's: 0 for a model that computes the same.

    Args:
        model: The model before anything goes.
        run: Runs a model on the data, in the same order each time.
    """
    expected: list[Tensor] = []
    with _told_of_outputs(model, lambda output: expected.append(_first(output))):
        _run_only(model, run)
    whole = sum(float(each.square().sum()) for each in expected)
    if not whole:
        raise PruneError(
            "The model returns nothing but zeros on the data, or never ran on them, so there is "
            "nothing to compare with. Give evaluate=, a function of the model that returns its "
            "loss."
        )

    def distance(small: nn.Module) -> float:
        known, apart = iter(expected), 0.0

        def note(output: Any) -> None:
            nonlocal apart
            apart += float((_first(output) - next(known)).square().sum())

        with _told_of_outputs(small, note):
            _run_only(small, run)
        return apart / whole

    if distance(model) > _SAME:
        raise PruneError(
            "The same model returns something else when it runs on the data again, so nothing can "
            "be compared. Give data in an order that stays, such as a list of batches, or "
            "evaluate=, a function of the model that returns its loss."
        )
    return distance


def _run_only(model: nn.Module, run: Run) -> None:
    with only_run(model):
        run(model)


@contextmanager
def _told_of_outputs(model: nn.Module, note: Callable[[Any], None]) -> Iterator[None]:
    handle = model.register_forward_hook(lambda module, args, output: note(output))
    try:
        yield
    finally:
        handle.remove()


def _first(output: Any) -> Tensor:
    """The first tensor of floating-point numbers that a model returns, in double precision."""
    found = next(_tensors(output), None)
    if found is None:
        raise PruneError(
            f"The model returns a {type(output).__name__} without numbers that could be compared. "
            "Give evaluate=, a function of the model that returns its loss."
        )
    return found.detach().double()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from _tensors([*output.values()])
    elif isinstance(output, tuple | list):
        for each in output:
            yield from _tensors(each)
