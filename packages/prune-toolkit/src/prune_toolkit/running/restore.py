"""Letting somebody else's code run a model, and putting the model back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from torch.optim import Optimizer

from prune_core.errors import PruneError
from prune_core.traversal import modules_in

__all__ = ["evaluating", "in_its_mode", "left_as_it_was", "only_run"]


@contextmanager
def left_as_it_was(model: nn.Module, optimizer: Optimizer | None = None) -> Iterator[None]:
    """Let anything be done with a model, training too, and then put it back.

    Parameters, buffers such as the running statistics of batch norm, gradients, and train or eval
    of each module come back, into the same tensors; so does the state of the optimizer.
    """
    parameters = [(tensor, tensor.detach().clone()) for tensor in model.parameters()]
    state = None if optimizer is None else deepcopy(optimizer.state_dict())
    try:
        with _without_gradients(model), _with_its_buffers(model), in_its_mode(model):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in parameters:
                tensor.copy_(value)
        if optimizer is not None and state is not None:
            optimizer.load_state_dict(state)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for a while."""
    with in_its_mode(model):
        for module in modules_in(model):
            if module.training:
                module.training = False  # some models refuse to be told with eval()
        yield


@contextmanager
def only_run(model: nn.Module) -> Iterator[None]:
    """Let a model be run, in eval mode, and put back all but its parameters, which are not copied.

    Raises:
        PruneError: Parameters were changed.
    """
    before = [tensor._version for tensor in model.parameters()]
    with _without_gradients(model), _with_its_buffers(model), evaluating(model):
        yield
    if before != [tensor._version for tensor in model.parameters()]:
        raise PruneError(
            "calibrate(model) has changed parameters of the model. It must only run the model: "
            "leave out the optimizer."
        )


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def _with_its_buffers(model: nn.Module) -> Iterator[None]:
    buffers = [(tensor, tensor.detach().clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in buffers:
                tensor.copy_(value)


@contextmanager
def in_its_mode(model: nn.Module) -> Iterator[None]:
    """Put back afterwards whether each module is in train or in eval mode."""
    training = [(module, module.training) for module in modules_in(model)]
    try:
        yield
    finally:
        for module, flag in training:
            if module.training is not flag:
                module.training = flag
