"""Where a forward looks at its numbers: which experts are hit, which branch is taken.

A model made smaller on purpose computes other numbers than the whole one, and may decide
otherwise. To be compared step by step with what was recorded, it is shown what was seen then.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

__all__ = ["Decisions", "agree", "decide_as", "decides", "everything", "seen"]

_TAGS = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
_BY_MASK = ("index", "masked_select")
"""Operators whose results hold the model's own numbers; it is their masks that decide."""

Decisions = Sequence[tuple[Any, ...]]
"""What the calls that decide something saw, one after the other."""


def decides(target: Any) -> bool:
    """Whether an operator's result is a plain number, or has a size, that depends on numbers."""
    return not _TAGS.isdisjoint(getattr(target, "tags", ()))


def seen(name: str, args: Any, result: Any) -> tuple[Any, ...]:
    """What a call of this name has decided by."""
    if name in _BY_MASK:
        return tuple(mask.clone() for mask in _masks(args))
    items = result if isinstance(result, list | tuple) else (result,)
    return tuple(item.clone() if isinstance(item, torch.Tensor) else item for item in items)


def decide_as(
    before: tuple[Any, ...], target: Any, name: str, args: Any, kwargs: dict[str, Any], result: Any
) -> Any:
    """The result that a call has if it decides as before."""
    if name in _BY_MASK:
        return target(*_with_masks(args, iter(before)), **kwargs) if before else result
    if any(map(_is_real, before)):
        return result  # a number of the model's own: whoever uses it has to follow the masks
    copies = [item.clone() if isinstance(item, torch.Tensor) else item for item in before]
    return copies if isinstance(result, list | tuple) else copies[0]


def everything(target: Any, name: str, args: Any) -> Any:
    """What `nonzero` would say if nothing were zero; `None` for any other operator."""
    return target(torch.ones_like(args[0])) if name == "nonzero" else None


def agree(left: Decisions, right: Decisions) -> bool:
    """Whether two forwards saw the same wherever they decided."""
    return len(left) == len(right) and all(
        len(one) == len(other) and all(map(_equal, one, other))
        for one, other in zip(left, right, strict=True)
    )


def _equal(one: Any, other: Any) -> bool:
    if _is_real(one):
        return True
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def _is_real(item: Any) -> bool:
    return item.is_floating_point() if isinstance(item, torch.Tensor) else isinstance(item, float)


def _masks(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from _masks(item)
    elif _is_mask(tree):
        yield tree


def _with_masks(tree: Any, masks: Iterator[torch.Tensor]) -> Any:
    if isinstance(tree, list | tuple):
        return [_with_masks(item, masks) for item in tree]
    return next(masks) if _is_mask(tree) else tree


def _is_mask(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8)
