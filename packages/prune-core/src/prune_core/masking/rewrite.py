"""Parameters and buffers that pruning gave other values, and the way back to the old ones.

Masks only hide values. Whoever changes those that stay, to make up for what is hidden, writes
them through here, so that a model can be had again as it was: after an error, or because masks
are taken off without being applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_core.masking.sharded import is_sharded

__all__ = ["Rewrites", "mark"]


@dataclass
class _Rewrite:
    """One tensor of one module.

    Attributes:
        module: Whose it is.
        name: Its name there.
        before: What it held; None where there was none, such as a layer without a bias.
        mark: Tells whether it still holds what was written, or has been trained since.
    """

    module: nn.Module
    name: str
    before: Tensor | None
    mark: int

    @property
    def now(self) -> Tensor | None:
        tensor: Tensor | None = getattr(self.module, self.name, None)
        return tensor


class Rewrites:
    """Writes values into modules, and remembers what was there.

    Args:
        keep: Where the old values are kept: given a tensor, returns one that holds the same.
    """

    def __init__(self, keep: Callable[[Tensor], Tensor] = Tensor.clone) -> None:
        self._keep = keep
        self._made: dict[tuple[int, str], _Rewrite] = {}

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[_Rewrite]:
        return iter(self._made.values())

    @torch.no_grad()
    def put(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Give a parameter or buffer other values; a parameter that is not there is made."""
        tensor: Tensor | None = getattr(module, name, None)
        if tensor is not None and is_sharded(tensor):
            raise PruneError(
                f"The {name} of a {type(module).__name__} is cut over several processes, where its "
                "values cannot be reconstructed. Prune before fully_shard()."
            )
        key = (id(module), name)
        made = self._made.get(key)
        if made is None:
            before = None if tensor is None else self._keep(tensor.detach())
            made = self._made[key] = _Rewrite(module, name, before, 0)
        if tensor is None:
            like = next(module.parameters(recurse=False))
            own = value.to(like.device, like.dtype)
            module.register_parameter(name, nn.Parameter(own, like.requires_grad))
        else:
            tensor.copy_(value)
        made.mark = mark(made.now)

    @torch.no_grad()
    def undo(self) -> None:
        """Put back what was there, but for tensors that have been trained since."""
        for made in self._made.values():
            now = made.now
            if now is None or mark(now) != made.mark:
                continue
            if made.before is None:
                setattr(made.module, made.name, None)
            else:
                now.copy_(made.before)
        self._made = {}

    def absorb(self, later: Rewrites) -> None:
        """Take over what was written later, and remember what was there before both.

        A tensor that was trained between the two counts as it was after that training.
        """
        for key, new in later._made.items():
            old = self._made.get(key)
            if old is not None and old.mark == mark(new.before):
                old.mark = new.mark
            else:
                self._made[key] = new
        later._made = {}


def mark(tensor: Tensor | None) -> int:
    """Return a number that is another one once values have changed: the sum of their bits."""
    if tensor is None:
        return 0
    flat = tensor.detach().contiguous().view(-1)
    size = flat.element_size()
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = flat.view(whole[size]) if size in whole else flat.view(torch.int8)
    return int(bits.sum(dtype=torch.int64))
