"""Let operators work in wider numbers than those that they are given."""

from typing import Any

import torch

from prune_speedup.engine.graph import name_of

__all__ = ["is_narrow", "run_wide", "wide_arguments"]


_PICKS = frozenset({"select", "index", "index_select", "unbind"})


def wide_arguments(func: Any, args: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> Any:
    """The arguments of an operator in a wider type; what it writes into stays as it is.

    Operators that only pick are given what there is, and what is picked is widened where something
    is computed with it. So of a tensor with a slice for each of 64 experts, the slice of one
    expert is widened and not all of them, 64 times.
    """
    if name_of(func) in _PICKS:
        return args, kwargs
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


def run_wide(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on numbers that may be wider than its kernels take."""
    if name_of(func) == "_grouped_mm" and args[0].dtype == torch.float64:
        return _grouped_mm(*args, **kwargs)
    return func(*args, **kwargs)


def _grouped_mm(
    rows: torch.Tensor,
    weights: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """A matrix for each run of rows, which ends where `offs` says."""
    if offs is None or rows.ndim != 2 or weights.ndim != 3:
        return torch._grouped_mm(rows, weights, offs=offs, bias=bias, out_dtype=out_dtype)
    made = rows.new_zeros(len(rows), weights.shape[-1])
    start = 0
    for weight, end in zip(weights, offs.tolist(), strict=True):
        made[start:end] = rows[start:end] @ weight
        start = end
    return made if bias is None else made + bias


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
