"""Leave blocks and branches out of a model for a while, to see what they are worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from prune_speedup.torch.depth.find import Block, Blocks
from prune_speedup.torch.depth.steps import instead_of

__all__ = ["left_out"]


@contextmanager
def left_out(model: nn.Module, found: Blocks, chosen: Iterable[Block]) -> Iterator[None]:
    """Let blocks return their input and branches return zeros, and put all of them back.

    Args:
        model: The model.
        found: What `prune_core.blocks` has found in it.
        chosen: What is left out.

    Example:
        ```python
        found = prune_core.blocks(model, x)
        with left_out(model, found, [found["layers.3"]]):
            print(evaluate(model))
        ```
    """
    before: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for block in chosen:
            for name in block.modules:
                parent, _, leaf = name.rpartition(".")
                holder = model.get_submodule(parent)
                module = holder._modules[leaf]
                assert module is not None
                before.append((holder, leaf, module))
                holder._modules[leaf] = instead_of(block.kind, found.seen[name]).made(module)
        yield
    finally:
        for holder, leaf, module in reversed(before):
            holder._modules[leaf] = module
