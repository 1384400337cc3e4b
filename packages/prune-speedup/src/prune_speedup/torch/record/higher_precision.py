"""Let operators work in wider numbers than those that they are given."""

from collections.abc import Callable
from typing import Any

import torch

from prune_speedup.engine.graph import name_of
from prune_speedup.torch.record.operators import Operator

__all__ = ["Wider", "is_narrow"]


_LOOKS_UP = frozenset({"embedding", "index", "index_select", "gather"})
_LARGE = 1 << 20
"""From so many bytes on, memory for wider numbers is used again. A system hands out large pieces
page by page, which takes longer than to fill them."""


class Wider:
    """Runs operators on numbers of a wider type than those that they are given.

    Views stay as they are, and what is taken from them is widened where something is computed with
    it: of a tensor with a slice for each of 64 experts, the slice of one expert and not all of
    them, 64 times. Of a table, the rows that are looked up are widened.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Widen to this type."""
        self.dtype = dtype
        self._room: dict[torch.device, torch.Tensor] = {}
        self._taken = 0

    def run(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        func = operator.target
        if operator.makes_views:
            return func(*args, **kwargs)
        if name_of(func) in _LOOKS_UP:
            return self._copied(func(*args, **kwargs))
        args, kwargs = self.arguments(operator, args, kwargs)
        if name_of(func) == "_grouped_mm" and args[0].dtype == torch.float64:
            return _grouped_mm(*args, **kwargs)
        return func(*args, **kwargs)

    def arguments(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an operator in the wider type; what it writes into stays as it is.

        They are good until the next operator is run.
        """
        self._taken = 0
        # What another library's operator keeps of its arguments, nobody knows.
        wide = self._copied if operator.is_foreign else self._borrowed
        places = {at for at, _ in operator.writes}
        names = {name for _, name in operator.writes}
        args = tuple(
            arg if at in places else _each(arg, self.dtype, wide) for at, arg in enumerate(args)
        )
        kwargs = {
            name: arg if name in names else _each(arg, self.dtype, wide)
            for name, arg in kwargs.items()
        }
        return args, kwargs

    def give_back(self) -> None:
        """Keep no memory any longer."""
        self._room.clear()

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if is_narrow(tensor, self.dtype) else tensor

    def _borrowed(self, tensor: torch.Tensor) -> torch.Tensor:
        """A wider copy in memory that is used again for the next operator."""
        if not is_narrow(tensor, self.dtype):
            return tensor
        size = tensor.numel()
        if size * self.dtype.itemsize < _LARGE or not _is_dense(tensor):
            return tensor.to(self.dtype)
        room = self._room.get(tensor.device)
        if room is None or len(room) < self._taken + size:
            # What was lent for this operator before is kept alive by who has it.
            room = tensor.new_empty(self._taken + size, dtype=self.dtype)
            self._room[tensor.device] = room
        piece = room[self._taken : self._taken + size]
        self._taken += size
        return piece.as_strided(tensor.shape, tensor.stride(), piece.storage_offset()).copy_(tensor)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers are one behind the other in memory, in whatever order of the axes."""
    along = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for step, size in along:
        if size > 1 and step != expected:
            return False
        expected *= size
    return tensor.layout is torch.strided


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


def _each(arg: Any, dtype: torch.dtype, wide: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(arg, torch.dtype):
        return dtype if arg.is_floating_point and arg.itemsize < dtype.itemsize else arg
    if isinstance(arg, torch.Tensor):
        return wide(arg)
    if isinstance(arg, list | tuple):
        return type(arg)(_each(item, dtype, wide) for item in arg)
    return arg


def is_narrow(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor holds floating-point numbers of fewer bits than these."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < dtype.itemsize
