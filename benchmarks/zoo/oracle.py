"""Judge a small model without any code of the engine.

The truth is the big model in float64 with the removed slices at zero and its norms taken over
the channels that are left. All that is asked of the engine is which slices it removed.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

import torch
from torch import nn

Slices = Mapping[str, Mapping[int, tuple[int, ...]]]

_WHOLE = ("Batch", "Instance", "Group")
"""Norms that never run over removable channels, or lose whole groups of them."""


def widest_difference(expected, found) -> float:
    """The largest difference between two outputs, relative to the largest number expected."""
    pairs = list(zip(tensors(expected), tensors(found), strict=True))
    if not pairs:
        raise ValueError("the model returns no tensors")
    worst = 0.0
    for left, right in pairs:
        if left.shape != right.shape:
            return float("inf")
        if not left.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(left, right) else float("inf"))
        elif left.numel():
            equal = left == right
            gap = torch.where(equal, torch.zeros_like(left), left - right).abs().max().item()
            size = left[left.isfinite()].abs().max().item()
            worst = max(worst, gap / max(size, 1e-12))
            if gap != gap:
                return float("inf")
    return worst


def tensors(tree) -> Iterator[torch.Tensor]:
    """Every tensor that a model returned."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from tensors(item)
    elif is_dataclass(tree):
        for each in fields(tree):
            yield from tensors(getattr(tree, each.name))


def masked_copy(model: nn.Module, removed: list[Slices]) -> nn.Module:
    """A float64 copy of the model with the slices at zero."""
    masked = copy.deepcopy(model).double().eval()
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for slices in removed:
            for name, axes in slices.items():
                for axis, indices in axes.items():
                    if name in parameters:
                        parameters[name].index_fill_(axis, torch.tensor(indices), 0)
    return masked


@contextmanager
def norms_over_live_channels(model: nn.Module, removed: list[Slices]) -> Iterator[None]:
    """While it lasts, every norm with a scale per channel only sees the channels left to it."""
    gone: dict[str, set[int]] = {}
    for slices in removed:
        for name, axes in slices.items():
            module, _, tensor = name.rpartition(".")
            if tensor in ("weight", "gamma", "scale") and 0 in axes:
                gone.setdefault(module, set()).update(axes[0])
    patched = []
    for name, indices in gone.items():
        module = model.get_submodule(name)
        kind = type(module).__name__
        whole = any(word in kind for word in _WHOLE) and getattr(module, "num_groups", 0) != 1
        if "Norm" in kind and not whole:
            module.forward = _live(module, module.forward, sorted(indices))
            patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            del module.forward


def _live(module: nn.Module, forward, gone: list[int]):
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.numel() > 1}
    count = max(p.numel() for p in own.values())
    keep = torch.tensor([index for index in range(count) if index not in set(gone)])

    def run(x, *args, **kwargs):
        channels_first = x.ndim == 4 and x.shape[1] == count and x.shape[-1] != count
        channels_first |= isinstance(module, nn.GroupNorm) or "2d" in type(module).__name__
        axis = 1 if channels_first else x.ndim - 1
        saved = {name: p.data for name, p in own.items()}
        sizes = {n: v for n, v in vars(module).items() if v == count or v == (count,)}
        try:
            for parameter in own.values():
                cut = next(a for a, s in enumerate(parameter.shape) if s == count)
                parameter.data = parameter.data.index_select(cut, keep)
            for name, value in sizes.items():
                setattr(module, name, len(keep) if value == count else (len(keep),))
            small = forward(x.index_select(axis, keep), *args, **kwargs)
        finally:
            for name, parameter in own.items():
                parameter.data = saved[name]
            for name, value in sizes.items():
                setattr(module, name, value)
        return torch.zeros_like(x).index_copy(axis, keep, small)

    return run
