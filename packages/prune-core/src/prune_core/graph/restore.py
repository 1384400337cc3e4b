"""Run a model's forward and leave no trace of it: modes, buffers, attributes and random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "untouched"]


_INNER = ("_parameters", "_buffers", "_modules")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back, on leaving, whatever a forward changed in the model.

    Buffers are copied because a forward may write into them (batch-norm statistics); parameters
    are not, because a copy would double the memory for something no forward should do.
    """
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    inner = [
        (vars(module)[name], dict(vars(module)[name]))
        for module, _ in attributes
        for name in _INNER
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, saved in attributes:
            module.__dict__.clear()
            module.__dict__.update(saved)
        for holder, held in inner:
            holder.clear()
            holder.update(held)
        with torch.no_grad():
            # The version counter does not tell: some norms write their statistics past it.
            for buffer, content in buffers:
                if not torch.equal(buffer, content):
                    buffer.copy_(content)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model.eval()` for a while, each module's own mode afterwards."""
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in training:
            module.training = mode
