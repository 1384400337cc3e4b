"""Which tokens stayed, and which number each of them has now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from prune_core.errors import ConfigError, shown

__all__ = ["TokenMap", "checked_ids"]


@dataclass(frozen=True)
class TokenMap:
    """The tokens that stayed in a vocabulary.

    Attributes:
        vocabulary: The name of the vocabulary.
        before: How many tokens it had.
        old_ids: The old id of each token that stayed: the token that is 3 now was `old_ids[3]`.

    Example:
        >>> tokens = TokenMap("embed", 10, [0, 4, 7])
        >>> tokens.new_ids
        {0: 0, 4: 1, 7: 2}
        >>> tokens.to_new([7, 4]), tokens.to_old([2, 1])
        ([2, 1], [7, 4])
        >>> tokens.to_new(torch.tensor([[7, -100, 5]]), unknown=0)
        tensor([[   2, -100,    0]])
    """

    vocabulary: str
    before: int
    old_ids: list[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.old_ids)

    @cached_property
    def new_ids(self) -> dict[int, int]:
        """The new id of each token that stayed, by its old one."""
        return {old: new for new, old in enumerate(self.old_ids)}

    @overload
    def to_new(self, ids: Tensor, *, unknown: int | None = None) -> Tensor: ...
    @overload
    def to_new(self, ids: Iterable[int], *, unknown: int | None = None) -> list[int]: ...
    def to_new(self, ids: Any, *, unknown: int | None = None) -> Any:
        """Return the new ids of tokens; numbers that are no tokens, such as −100, stay.

        Args:
            ids: Old ids, in a tensor or a list.
            unknown: The new id for tokens that are gone; without it, one of these is an error.

        Raises:
            ConfigError: A token is gone, and it was not said what stands for it.
        """
        table = torch.full((self.before,), -1 if unknown is None else unknown)
        table[self.old_ids] = torch.arange(len(self.old_ids))
        tensor = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids))
        new = _mapped(tensor, table)
        if unknown is None and bool((gone := (tensor >= 0) & (new == -1)).any()):
            raise ConfigError(
                f"The token {int(tensor[gone][0])} is no longer in the vocabulary. Keep it, or say "
                "what stands for tokens that are gone: to_new(ids, unknown=tokens.new_ids[...])."
            )
        return new if isinstance(ids, Tensor) else new.tolist()

    @overload
    def to_old(self, ids: Tensor) -> Tensor: ...
    @overload
    def to_old(self, ids: Iterable[int]) -> list[int]: ...
    def to_old(self, ids: Any) -> Any:
        """Return the old ids of tokens, such as those that `generate` returns.

        Args:
            ids: New ids, in a tensor of any shape.

        Raises:
            ConfigError: There is no such token.
        """
        tensor = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids))
        if tensor.numel() and int(tensor.max()) >= len(self.old_ids):
            raise ConfigError(
                f"There is no token {int(tensor.max())}; {len(self.old_ids)} tokens have stayed."
            )
        old = _mapped(tensor, torch.tensor(self.old_ids))
        return old if isinstance(ids, Tensor) else old.tolist()

    def tokenizer(self, tokenizer: Any) -> Any:
        """Return a tokenizer of transformers that makes the new ids; see `smaller_tokenizer`.

        Args:
            tokenizer: The tokenizer of the whole model.
        """
        from prune_speedup.torch.vocabulary.tokenizer import smaller_tokenizer

        return smaller_tokenizer(tokenizer, self)


def _mapped(ids: Tensor, table: Tensor) -> Tensor:
    """Look numbers up in a table, and leave those that are not in it as they are."""
    inside = (ids >= 0) & (ids < len(table))
    found = table.to(ids.device)[ids.clamp(0, len(table) - 1).long()].to(ids.dtype)
    return torch.where(inside, found, ids)


def checked_ids(ids: Any, argument: str, size: int) -> list[int]:
    """Return token ids that a user gave, sorted; refuse what is none."""
    if isinstance(ids, Tensor):
        ids = ids.flatten().tolist()
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise ConfigError(f"{argument} is {shown(ids)}; it must be a list of token ids.")
    found: Sequence[Any] = list(ids)
    for each in found:
        if type(each) is not int or not 0 <= each < size:
            raise ConfigError(
                f"{argument} has {shown(each)}; the {size} tokens are numbered from 0 to "
                f"{size - 1}."
            )
    return sorted({*found})
