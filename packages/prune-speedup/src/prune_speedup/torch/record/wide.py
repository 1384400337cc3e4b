"""Let operators work in wider numbers than those that they are given."""

from typing import Any

import torch

__all__ = ["is_narrow", "wide_arguments"]


def wide_arguments(func: Any, args: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> Any:
    """The arguments of an operator in a wider type; what it writes into stays as it is."""
    written = {
        argument.name: at
        for at, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    args = tuple(
        arg if at in written.values() else _wide(arg, dtype) for at, arg in enumerate(args)
    )
    kwargs = {n: arg if n in written else _wide(arg, dtype) for n, arg in kwargs.items()}
    return args, kwargs


def _wide(arg: Any, dtype: torch.dtype) -> Any:
    if isinstance(arg, torch.dtype):
        return dtype if arg.is_floating_point and arg.itemsize < dtype.itemsize else arg
    if isinstance(arg, torch.Tensor):
        return arg.to(dtype) if is_narrow(arg, dtype) else arg
    if isinstance(arg, list | tuple):
        return type(arg)(_wide(item, dtype) for item in arg)
    return arg


def is_narrow(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor holds floating-point numbers of fewer bits than these."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < dtype.itemsize
