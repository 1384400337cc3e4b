"""Let operators work in wider numbers than those that they are given."""

from typing import Any

import torch

from prune_speedup.engine.graph import name_of
from prune_speedup.torch.record.operators import Operator

__all__ = ["Wider", "is_narrow"]


_LOOKS_UP = frozenset({"embedding", "index", "index_select", "gather"})
_BLOCK = 1 << 19
"""How many numbers of a matrix are widened at once: so many stay in a processor's cache."""


class Wider:
    """Runs operators on numbers of a wider type than those that they are given.

    Views stay as they are, and what is taken from them is widened where something is computed with
    it: of a tensor with a slice for each of 64 experts, the slice of one expert and not all of
    them, 64 times. Of a table, the rows that are looked up are widened. The weights of a linear
    layer are widened block by block, and never are all there:

        x @ weight.T   is   x @ wide(weight[:256]).T  beside  x @ wide(weight[256:512]).T ...
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Widen to this type."""
        self.dtype = dtype
        self._room: torch.Tensor | None = None

    def run(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        func, name = operator.target, name_of(operator.target)
        if operator.makes_views:
            return func(*args, **kwargs)
        if name in _LOOKS_UP:
            return self._wide(func(*args, **kwargs))
        if not kwargs and name in ("mm", "addmm") and self._is_large(args[-1]):
            made = self._product(self._wide(args[-2]), args[-1])
            return made if name == "mm" else made + self._wide(args[0])
        args, kwargs = self.arguments(operator, args, kwargs)
        if name == "_grouped_mm" and args[0].dtype == torch.float64:
            return _grouped_mm(*args, **kwargs)
        return func(*args, **kwargs)

    def arguments(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an operator in the wider type; what it writes into stays as it is."""
        places = {at for at, _ in operator.writes}
        names = {name for _, name in operator.writes}
        args = tuple(arg if at in places else self._each(arg) for at, arg in enumerate(args))
        kwargs = {n: arg if n in names else self._each(arg) for n, arg in kwargs.items()}
        return args, kwargs

    def _is_large(self, matrix: torch.Tensor) -> bool:
        return is_narrow(matrix, self.dtype) and matrix.numel() > _BLOCK and matrix.is_cpu

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        inner, outer = right.shape
        step = max(1, _BLOCK // inner)
        if self._room is None or len(self._room) < inner * step:
            self._room = torch.empty(inner * step, dtype=self.dtype, device="cpu")
        parts = []
        for block in torch.split(right, step, 1):
            room = self._room[: block.numel()]
            if block.stride(0) == 1:  # as it is copied quickly: `weight.T` has its columns in a row
                wide = room.view(block.shape[1], inner).t()
            else:
                wide = room.view(block.shape)
            parts.append(left @ wide.copy_(block))
        return torch.cat(parts, 1) if outer > step else parts[0]

    def _each(self, arg: Any) -> Any:
        if isinstance(arg, torch.dtype):
            narrow = arg.is_floating_point and arg.itemsize < self.dtype.itemsize
            return self.dtype if narrow else arg
        if isinstance(arg, torch.Tensor):
            return self._wide(arg)
        if isinstance(arg, list | tuple):
            return type(arg)(self._each(item) for item in arg)
        return arg

    def _wide(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if is_narrow(tensor, self.dtype) else tensor


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


def is_narrow(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor holds floating-point numbers of fewer bits than these."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < dtype.itemsize
