"""Which kernels torch takes for a forward that is watched operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prune_core.traversal import modules_in

__all__ = ["plain_kernels"]


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Ask for the plain operators where torch would take one fused call for a whole layer.

    In a fused call of attention or recurrence, nobody sees what is multiplied with what.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_in(model))
    fastpath = torch.backends.mha.get_fastpath_enabled()
    onednn, cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        if recurrent:
            torch._C._set_mkldnn_enabled(False)
            torch._C._set_cudnn_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        torch._C._set_mkldnn_enabled(onednn)
        torch._C._set_cudnn_enabled(cudnn)
