"""Run a model's forward and leave no trace of it: modes, buffers, attributes and random numbers."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prune_core.random_state import put_random, take_random

__all__ = ["evaluating", "on_processor", "untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back, on leaving, whatever a forward changed in the model.

    The dicts, lists and sets that modules keep get their own content back: a forward that fills a
    cache or hooks its layers on first use will do so on its next first use.

    Buffers are copied because a forward may write into them (batch-norm statistics); parameters
    are not, because a copy would double the memory for something no forward should do.
    """
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    inner = [
        (held, held.copy())
        for _, saved in attributes
        for held in saved.values()
        if type(held) in (dict, OrderedDict, list, set)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    to_come = take_random()
    try:
        yield
    finally:
        put_random(to_come)
        for module, saved in attributes:
            module.__dict__.clear()
            module.__dict__.update(saved)
        for holder, held in inner:
            holder.clear()
            (holder.extend if isinstance(holder, list) else holder.update)(held)
        with torch.no_grad():
            # The version counter does not tell: some norms write their statistics past it.
            for buffer, content in buffers:
                if not buffer.is_meta and not torch.equal(buffer, content):
                    buffer.copy_(content)


@contextmanager
def on_processor() -> Iterator[None]:
    """Make new tensors on the processor, whatever device the user has made the default.

    What is known of a model lives there, beside numpy. Nothing is done where nothing has to be:
    a default device costs something at every call of torch.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model.eval()` for a while, each module's own mode afterwards."""
    training = [(module, module.training) for module in model.modules()]
    try:
        for module in model.modules():
            module.training = False  # some models refuse to be told with eval()
        yield
    finally:
        for module, mode in training:
            module.training = mode
