"""Run a model without gradients, and operator by operator."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prune_speedup.torch.record.kernels import plain_kernels

__all__ = ["plainly"]


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
