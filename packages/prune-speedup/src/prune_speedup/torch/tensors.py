"""Cut parameters and buffers in place, and put them back if need be."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from prune_core.masking.slices import all_of, are_full_rows
from prune_core.traversal import modules_in, named_tensors
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan

__all__ = ["Snapshot", "cut", "cut_slices", "cut_tensors", "named", "places", "put", "residual"]


class Snapshot:
    """The tensors and the sizes of a model, to go back to.

    Nothing is copied: the old numbers are only kept alive.
    """

    def __init__(self, model: nn.Module) -> None:
        """Remember everything that speedup may change: of a scripted module the tensors alone."""
        self._model = model
        self._data = [(t, t.data, t.grad) for t in named_tensors(model).values()]
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
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name in _HOLDERS:
                holder = module.__dict__[name]
                holder.clear()
                holder.update(holders.get(name, ()))
        for tensor, data, grad in self._data:
            put(tensor, data, grad)


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
    wanted: Callable[[torch.Tensor], bool] = lambda tensor: True,
) -> None:
    """Leave of every tensor only what the plan keeps, with its masks multiplied in.

    The tensor objects stay: an optimizer, a tie and `requires_grad` all survive.

    Args:
        model: The model.
        plan: What goes.
        masks: `{tensor name: mask}`.
        wanted: Whether a tensor is cut here.
    """
    named = named_tensors(model)
    for value, names in plan.labelling.graph.tensors.items():
        tensor = next(named[name] for name in names if name in named)
        if not wanted(tensor):
            continue
        kept = plan.kept(value)
        masked = next((masks[name] for name in names if name in masks), None)
        numbers, grad = tensor.data, tensor.grad
        data = cut(numbers, kept)
        grad = None if grad is None else cut(grad, kept)
        # Most often all that is masked is cut away, and nothing is left to be multiplied.
        if masked is not None and (left := residual(masked, kept)) is not None:
            data = data * left.to(data.device, data.dtype)
        if data is not numbers:
            put(tensor, _in_order_of(tensor, data), grad)


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


def cut(tensor: torch.Tensor, kept: Mapping[int, Array]) -> torch.Tensor:
    """Leave of a tensor the indices of some axes."""
    shape = tensor.shape
    # What leaves least goes first, so that the other axes copy as little as there is.
    for axis, indices in sorted(kept.items(), key=lambda item: len(item[1]) / shape[item[0]]):
        tensor = tensor.index_select(axis, places(indices, tensor.device))
    return tensor


def residual(mask: torch.Tensor, kept: Mapping[int, Array]) -> torch.Tensor | None:
    """What is left of a mask beside a tensor that was cut; `None` if nothing is masked any more.

    Of a mask of whole rows that is known from the rows alone, without copying a part of it.
    """
    if mask.ndim and are_full_rows(mask, kept.get(0)):
        return None
    left = cut(mask, kept)
    return None if all_of(left) else left


def places(indices: Array, device: torch.device) -> torch.Tensor:
    """Indices of a plan as a tensor where they are needed."""
    return torch.from_numpy(indices).to(device)


def _in_order_of(tensor: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """The data with channels last in memory, if that is how the tensor has them."""
    order = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    if order is None or tensor.is_contiguous():
        return data
    return (
        data.contiguous(memory_format=order) if tensor.is_contiguous(memory_format=order) else data
    )


def put(tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None) -> None:
    """Give a tensor other numbers, perhaps of another shape, and its gradient with them."""
    tensor.grad = None
    if tensor.shape != data.shape:
        # A loss that is still in scope keeps alive what collects this tensor's gradients, and
        # that remembers the shape. Only a change of type makes torch begin a new one.
        other = torch.float32 if tensor.dtype == torch.float64 else torch.float64
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data
    tensor.grad = grad
