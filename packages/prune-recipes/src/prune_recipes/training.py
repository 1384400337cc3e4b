"""Training with a function that a recipe names, epoch by epoch, each kept on the disk."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.callables import UserFunction
from prune_core.errors import ConfigError, PruneError
from prune_core.files import replacing
from prune_core.progress import Task
from prune_recipes.code import function_of, load
from prune_recipes.recipe import Call, Training
from prune_toolkit.running.random_state import seeded

__all__ = ["function_for", "keep_zeros", "seed_of", "train", "trainer_of"]

Masks = Mapping[str, Mapping[str, Tensor]]


def seed_of(seed: int, *parts: object) -> int:
    """Return a seed for a part of a run: the same for every start, another for every part.

    >>> seed_of(0, "finetune", 1) == seed_of(0, "finetune", 2)
    False
    """
    return zlib.crc32(repr((seed, *parts)).encode())


def trainer_of(call: Call, key: str) -> UserFunction:
    """Return a function that trains a model, and knows what else it takes.

    Args:
        call: What names it.
        key: Where it is named.
    """
    return UserFunction(function_of(call, key), key, ("model", "optimizer", "epoch"))


def function_for(training: Training, key: str) -> UserFunction:
    """Return the function that a recipe trains with.

    Args:
        training: What the recipe says of it.
        key: The key of the recipe that says it.

    Raises:
        ConfigError: It is no function, or requires an optimizer of which the recipe says nothing.
    """
    function = trainer_of(training, key)
    if training.optimizer is None and "optimizer" in function.takes:
        raise ConfigError(
            f"{key}: {training.call} requires an optimizer; say which, such as optimizer: "
            "{call: torch.optim:Adam, arguments: {lr: 0.001}}."
        )
    return function


def train(
    model: nn.Module, training: Training, key: str, *, seed: int, kept: Path, masks: Masks
) -> int:
    """Train a model, going on after the last epoch that an earlier start has kept.

    Random numbers are seeded anew for each epoch. So an epoch depends on the model, the optimizer
    and its number, and not on whether it is the first of a process.

    Args:
        model: The model, trained in place.
        training: What the recipe says of it.
        key: The key of the recipe that says it.
        seed: Of the run.
        kept: A folder for what has been done.
        masks: Whose zeros stay.

    Returns:
        How many epochs were made, all starts together.
    """
    function = function_for(training, key)
    optimizer: Any = None
    if training.optimizer is not None:
        make = load(training.optimizer.call, f"{key}.optimizer")
        try:
            optimizer = make(model.parameters(), **training.optimizer.arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}.optimizer: {training.optimizer.call}: {error}") from error
    epochs = training.epochs or 1
    file = kept / "epoch.pt"
    done = _restored(file, model, optimizer)
    with keep_zeros(model, masks), Task(key, epochs, "epoch", announce=True) as task:
        for epoch in range(epochs):
            if epoch < done:
                task.advance(replayed=True)
                continue
            with seeded(seed_of(seed, key, epoch)):
                _call(function, model, optimizer, epoch, f"{key}: {training.call}")
            if epoch + 1 < epochs:
                _keep(file, model, optimizer, epoch + 1)
            task.advance()
    return epochs


def _call(function: Any, model: nn.Module, optimizer: Any, epoch: int, what: str) -> None:
    model.train()
    try:
        function(model, optimizer, epoch)
    except PruneError:
        raise
    except Exception as error:
        raise PruneError(f"{what} failed: {type(error).__name__}: {error}") from error
    finally:
        model.eval()


def _keep(file: Path, model: nn.Module, optimizer: Any, done: int) -> None:
    state = {
        "done": done,
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
    }
    with replacing(file) as opened:
        torch.save(state, opened)


def _restored(file: Path, model: nn.Module, optimizer: Any) -> int:
    """Put back what was kept, and return how many epochs that were."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return 0
    model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["done"])


@contextmanager
def keep_zeros(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Keep masked values at zero while a model is trained.

    Their gradients are zero, so no step moves them; what something else did is undone at the end.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    masked = [
        (modules[name].get_parameter(tensor), mask)
        for name, tensors in masks.items()
        for tensor, mask in tensors.items()
        if not bool(mask.all())
    ]
    handles = [
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient))
        for parameter, mask in masked
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for parameter, mask in masked:
                parameter.masked_fill_(mask.to(parameter.device) == 0, 0.0)
