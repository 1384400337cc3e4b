"""Cut parameters and buffers in place, and put them back if need be."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from prune_core.masking.slices import all_of, are_full_rows, covers_zeros
from prune_core.traversal import modules_in, named_tensors
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.heap import is_large
from prune_speedup.torch.parts import Numbers, Part, cut, in_order_of, put
from prune_speedup.torch.record.isolation import put_back

__all__ = ["Snapshot", "cut_slices", "cut_tensors", "named", "residual"]


class Snapshot:
    """The tensors and the sizes of a model, to go back to.

    Nothing is copied: the old numbers are only kept alive, in one piece or in parts.
    """

    def __init__(self, model: nn.Module, earlier: "Snapshot | None" = None) -> None:
        """Remember everything that speedup may change: of a scripted module the tensors alone.

        Args:
            model: The model.
            earlier: One of the same model. What both remember they remember as one.
        """
        self._model = model
        known: dict[int, _Held] = {} if earlier is None else earlier._held
        tensors = named_tensors(model).values()
        self._is_large = is_large(sum([each.numel() * each.element_size() for each in tensors]))
        self._held: dict[int, _Held] = {
            id(tensor): _held_by(tensor, known.get(id(tensor))) for tensor in tensors
        }
        self._modules = [
            (
                module,
                type(module),
                dict(module.__dict__),
                {name: dict(held) for name in _HOLDERS if (held := module.__dict__[name])},
            )
            for module in modules_in(model)
            if not isinstance(module, torch.jit.ScriptModule)
        ]

    def restore(self) -> None:
        """Make the model what it was, down to the identity of its tensors."""
        for module, kind, attributes, holders in self._modules:
            module.__class__ = kind
            put_back(module.__dict__, attributes)
            for name in _HOLDERS:
                if (holder := attributes[name]) or name in holders:
                    put_back(holder, holders.get(name, {}))
        for tensor, numbers, part, grad in self._held.values():
            put(tensor, numbers.get(part), grad)

    def let_go(self) -> None:
        """Go back no more: what the model has become is all that is kept."""
        for _, numbers, _, _ in self._held.values():
            if numbers.in_parts:
                numbers.let_go()

    def cut(self, tensor: torch.Tensor, kept: Mapping[int, Array]) -> Part | None:
        """Prepare a tensor of a large model for being cut, if that needs no second copy of it.

        What is left is blank first. It gets its numbers where a snapshot of it is restored.
        """
        held = self._held.get(id(tensor)) if self._is_large else None
        return None if held is None or held.part is not None else held.numbers.cut(kept)

    def give_numbers(self) -> None:
        """Give numbers to tensors that were cut since, and are blank."""
        for tensor, numbers, _, _ in self._held.values():
            if numbers.in_parts and (part := numbers.blank_in(tensor)) is not None:
                put(tensor, numbers.get(part), tensor.grad)


class _Held(NamedTuple):
    """A tensor, and what it held: numbers, or a part of them."""

    tensor: torch.Tensor
    numbers: Numbers
    part: Part | None
    grad: torch.Tensor | None


def _held_by(tensor: torch.Tensor, known: _Held | None) -> _Held:
    if known is not None:
        same, part = known.numbers.found_in(tensor)
        if same:
            return _Held(tensor, known.numbers, part, tensor.grad)
    return _Held(tensor, Numbers(tensor), None, tensor.grad)


_HOLDERS = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
)


def cut_tensors(
    model: nn.Module,
    plan: Plan,
    masks: Mapping[str, torch.Tensor],
    before: Snapshot | None = None,
    wanted: Callable[[torch.Tensor], bool] = lambda tensor: True,
) -> None:
    """Leave of every tensor only what the plan keeps, with its masks multiplied in.

    The tensor objects stay: an optimizer, a tie and `requires_grad` all survive.

    Args:
        model: The model.
        plan: What goes.
        masks: `{tensor name: mask}`.
        before: What the model is now, if shapes are all that is wanted of large tensors until the
            small model is remembered, and put back.
        wanted: Whether a tensor is cut here.
    """
    named = named_tensors(model)
    for value, names in plan.labelling.graph.tensors.items():
        tensor = next(named[name] for name in names if name in named)
        if not wanted(tensor):
            continue
        kept = plan.kept(value)
        masked = next((masks[name] for name in names if name in masks), None)
        # Most often all that is masked is cut away, or is zero already, and nothing is left to be
        # multiplied.
        left = None if masked is None else residual(masked, kept)
        if masked is not None and left is not None:
            zero = covers_zeros(masked.to(tensor.device), tensor.detach())
            left = None if zero else left
        grad = None if tensor.grad is None else cut(tensor.grad, kept)
        part = None if before is None or left is not None else before.cut(tensor, kept)
        if part is not None:
            assert part.blank is not None
            put(tensor, part.blank, grad)
            continue
        data = cut(tensor.data, kept)
        if left is not None:
            data = data * left.to(data.device, data.dtype)
        if kept or left is not None:
            put(tensor, in_order_of(tensor, data), grad)


def cut_slices(model: nn.Module, kept: Mapping[str, Mapping[int, Array]]) -> None:
    """Leave of some tensors the indices of some axes.

    Args:
        model: The model.
        kept: `{tensor name: {axis: indices}}`.
    """
    held = named(model)
    for name, axes in kept.items():
        tensor = held[name]
        put(tensor, cut(tensor.data, axes), None if tensor.grad is None else cut(tensor.grad, axes))


def named(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by all of their names."""
    return named_tensors(model, every_name=True)


def residual(mask: torch.Tensor, kept: Mapping[int, Array]) -> torch.Tensor | None:
    """What is left of a mask beside a tensor that was cut; `None` if nothing is masked any more.

    Of a mask of whole rows that is known from the rows alone, without copying a part of it.
    """
    if mask.ndim and are_full_rows(mask, kept.get(0)):
        return None
    left = cut(mask, kept)
    return None if all_of(left) else left
