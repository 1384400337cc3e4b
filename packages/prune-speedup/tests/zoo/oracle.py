"""Judge a small model without any code of the engine.

The truth is the big model in float64 with the removed slices at zero and its norms taken over
the channels that are left. All that is asked of the engine is which slices it removed.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

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


class InDouble(TorchFunctionMode):
    """Let a forward that asks for single precision work in double precision all the way."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = {torch.Tensor.float: torch.Tensor.double}.get(func, func)
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {n: torch.float64 if a is torch.float32 else a for n, a in (kwargs or {}).items()}
        if func in (torch._grouped_mm, getattr(F, "grouped_mm", None)):
            return _grouped_product(*args, **kwargs)
        return func(*args, **kwargs)


def _grouped_product(rows: torch.Tensor, weights: torch.Tensor, *, offs: torch.Tensor, **_):
    """What torch only has for single precision: a matrix for each run of rows."""
    ends = offs.tolist()
    begins = [0, *ends[:-1]]
    pieces = [rows[a:b] @ weight for a, b, weight in zip(begins, ends, weights, strict=True)]
    return torch.cat([*pieces, rows.new_zeros(len(rows) - ends[-1], weights.shape[-1])])


class LiveStatistics(TorchFunctionMode):
    """Leave out of a norm without parameters the channels that hold nothing but zeros."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.layer_norm and kwargs.get("weight") is None:
            x, live = args[0], _live_along(args[0])
            if live is not None:
                small = func(x.index_select(-1, live), (len(live),), **kwargs)
                return torch.zeros_like(x).index_copy(-1, live, small)
        named = func in (torch.Tensor.mean, torch.Tensor.var, torch.mean, torch.var)
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if named and axis in (-1, [-1], (-1,)) and kwargs.get("keepdim"):
            live = _live_along(args[0])
            if live is not None:
                args = (args[0].index_select(-1, live), *args[1:])
        return func(*args, **kwargs)


def _live_along(x: torch.Tensor) -> torch.Tensor | None:
    """The indices of the last axis with something in them, unless that is all or none."""
    alive = (x != 0).flatten(0, -2).any(0)
    return alive.nonzero().flatten() if alive.any() and not alive.all() else None


def doubled(inputs):
    """Example inputs in double precision."""
    if isinstance(inputs, dict):
        return {name: doubled(item) for name, item in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(doubled(item) for item in inputs)
    floating = isinstance(inputs, torch.Tensor) and inputs.is_floating_point()
    return inputs.double() if floating else inputs


def run(model: nn.Module, inputs):
    """What a model returns, worked out in double precision and by plain operators."""
    inputs = doubled(inputs)
    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else {}
    fast, default = torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    try:
        # torch's fused encoder layer would read the norms' weights past their modules.
        torch.backends.mha.set_fastpath_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        with torch.no_grad(), InDouble():
            return model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_default_dtype(default)


class Verdict(NamedTuple):
    """What the oracle found.

    Attributes:
        difference: How far the small model is from the original with the slices masked.
        moved: How far the mask moved the original: what is small here could hide a mistake.
    """

    difference: float
    moved: float


def compare(original: nn.Module, small: nn.Module, inputs, removed: list[Slices]) -> Verdict:
    """Judge a small model by the original and the slices that were taken out of it."""
    truth = masked_copy(original, removed)
    with norms_over_live_channels(truth, removed), LiveStatistics():
        expected = run(truth, inputs)
    del truth
    moved = widest_difference(run(masked_copy(original, []), inputs), expected)
    return Verdict(widest_difference(expected, run(small.double().eval(), inputs)), moved)


def masked_copy(model: nn.Module, removed: list[Slices]) -> nn.Module:
    """A float64 copy of the model with the slices at zero."""
    masked = copy.deepcopy(model).double().eval()
    parameters = dict(masked.named_parameters())
    # A table of positions may be a buffer; what it adds to a channel goes with the channel.
    tables = {name: each for name, each in masked.named_buffers() if each.is_floating_point()}
    with torch.no_grad():
        for slices in removed:
            for name, axes in slices.items():
                tensor = parameters.get(name, tables.get(name))
                for axis, indices in axes.items():
                    if tensor is not None and not _is_direction(name, axis, parameters):
                        tensor.index_fill_(axis, torch.tensor(indices), 0)
    return masked


def _is_direction(name: str, axis: int, parameters: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are directions of a weight norm: the lengths beside them mask them already."""
    for direction, length in (("original1", "original0"), ("weight_v", "weight_g")):
        lengths = parameters.get(name.removesuffix(direction) + length)
        if name.endswith(direction) and lengths is not None:
            return lengths.ndim == parameters[name].ndim and lengths.shape[axis] > 1
    return False


@contextmanager
def norms_over_live_channels(model: nn.Module, removed: list[Slices]) -> Iterator[None]:
    """While it lasts, every norm with a scale per channel only sees the channels left to it.

    So does every kind of convolution that is not torch's own: it may take a norm of its weight.
    """
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
    patched += list(_standardised(model, removed))
    try:
        yield
    finally:
        for module in patched:
            del module.forward


def _standardised(model: nn.Module, removed: list[Slices]) -> Iterator[nn.Module]:
    gone: dict[str, set[int]] = {}
    for slices in removed:
        for name, axes in slices.items():
            if name.endswith("weight") and 1 in axes:
                gone.setdefault(name.rpartition(".")[0], set()).update(axes[1])
    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for name, indices in gone.items():
        module = model.get_submodule(name)
        if isinstance(module, plain) and type(module) not in plain:
            module.forward = _on_live_inputs(module, module.forward, indices)
            yield module


def _on_live_inputs(module: nn.Module, forward, gone: set[int]):
    weight, groups = module.weight, module.groups
    count = weight.shape[1]
    keep = [index for index in range(count) if index not in gone]
    inputs = torch.tensor([group * count + index for group in range(groups) for index in keep])

    def run(x):
        whole = weight.data
        try:
            weight.data = whole.index_select(1, torch.tensor(keep))
            return forward(x.index_select(1, inputs))
        finally:
            weight.data = whole

    return run


def _live(module: nn.Module, forward, gone: list[int]):
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.numel() > 1}
    count = max(p.numel() for p in own.values())
    keep = torch.tensor([index for index in range(count) if index not in set(gone)])

    def run(x, *args, **kwargs):
        axis = _channel_axis(x, count, torch.tensor(gone))
        args = [_cut(arg, x.shape, axis, keep) for arg in args]
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
        if isinstance(small, tuple):
            return tuple(_grown(each, x, axis, keep) for each in small)
        return _grown(small, x, axis, keep)

    return run


def _channel_axis(x: torch.Tensor, count: int, gone: torch.Tensor) -> int:
    """The axis of the channels: as long as the parameters, and zero where they are gone."""
    fitting = [axis for axis, size in enumerate(x.shape) if size == count]
    zero = [axis for axis in fitting if not x.index_select(axis, gone).any()]
    return (zero or fitting)[-1]


def _cut(arg, shape: torch.Size, axis: int, keep: torch.Tensor):
    same = isinstance(arg, torch.Tensor) and arg.shape == shape
    return arg.index_select(axis, keep) if same else arg


def _grown(small, x: torch.Tensor, axis: int, keep: torch.Tensor):
    if (
        not isinstance(small, torch.Tensor)
        or small.ndim != x.ndim
        or small.shape[axis] != len(keep)
    ):
        return small
    return torch.zeros_like(x).index_copy(axis, keep, small)
